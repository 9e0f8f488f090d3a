//! The query for a list of jobs.

use rusqlite::types::Value;
use sqlflow_job::JobState;

use super::rows::RECORD_COLUMNS;
use crate::types::JobFilter;

/// The text of the query and its values. It finds the newest jobs of each state by its index, and of these the newest:
/// the rows that are read are at most five times those that are asked for, however many jobs there are.
pub(super) fn listing(filter: JobFilter) -> (String, Vec<Value>) {
    let mut conditions = Vec::new();
    let mut add = |condition: &'static str, value: Option<String>| {
        conditions.extend(value.map(|value| (condition, Value::from(value))));
    };
    add("principal = ?", filter.principal);
    add("user_id = ?", filter.user_id);
    let is_of_every_state = conditions.is_empty() && filter.states.is_empty();
    conditions.extend(filter.before.map(|id| ("job_id < ?", Value::from(id.to_string()))));
    let limit = Value::from(i64::from(filter.limit));
    let also: String = conditions.iter().map(|(condition, _)| format!(" AND {condition}")).collect();
    let given = || conditions.iter().map(|(_, value)| value.clone());

    let (mut sql, mut values) = (format!("SELECT {RECORD_COLUMNS} FROM jobs WHERE TRUE"), Vec::new());
    if is_of_every_state {
        sql.push_str(&also);
        values.extend(given());
    } else {
        let states = if filter.states.is_empty() { JobState::NAMES.to_vec() } else { filter.states };
        let one = format!(
            "SELECT * FROM (SELECT job_id FROM jobs WHERE state = ?{also} ORDER BY job_id DESC LIMIT ?)"
        );
        sql.push_str(&format!(" AND job_id IN ({})", vec![one; states.len()].join(" UNION ALL ")));
        for state in states {
            values.push(Value::from(state.to_owned()));
            values.extend(given());
            values.push(limit.clone());
        }
    }
    sql.push_str(" ORDER BY job_id DESC LIMIT ?");
    values.push(limit);
    (sql, values)
}
