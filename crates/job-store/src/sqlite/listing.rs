//! The query for a list of jobs.

use rusqlite::types::Value;
use sqlflow_job::JobState;

use super::rows::RECORD_COLUMNS;
use crate::types::JobFilter;

/// The newest jobs of each state, by its index, and of these the newest: the rows that are looked at are no more than
/// five times those that are asked for, however many jobs there are.
/// The query's text, and what it is asked with.
pub(super) fn listing(filter: JobFilter) -> (String, Vec<Value>) {
    let (user, before) = (filter.user_id, filter.before.map(|id| id.to_string()));
    let limit = Value::from(i64::from(filter.limit));
    let (mut sql, mut values) = (format!("SELECT {RECORD_COLUMNS} FROM jobs WHERE TRUE"), Vec::new());
    if user.is_some() || !filter.states.is_empty() {
        let states = if filter.states.is_empty() { JobState::NAMES.to_vec() } else { filter.states };
        let mut of_states = Vec::new();
        for state in states {
            let mut one = "SELECT * FROM (SELECT job_id FROM jobs WHERE state = ?".to_owned();
            values.push(Value::from(state.to_owned()));
            if let Some(user) = &user {
                one.push_str(" AND user_id = ?");
                values.push(user.clone().into());
            }
            if let Some(before) = &before {
                one.push_str(" AND job_id < ?");
                values.push(before.clone().into());
            }
            one.push_str(" ORDER BY job_id DESC LIMIT ?)");
            values.push(limit.clone());
            of_states.push(one);
        }
        sql.push_str(&format!(" AND job_id IN ({})", of_states.join(" UNION ALL ")));
    } else if let Some(before) = before {
        sql.push_str(" AND job_id < ?");
        values.push(before.into());
    }
    sql.push_str(" ORDER BY job_id DESC LIMIT ?");
    values.push(limit);
    (sql, values)
}
