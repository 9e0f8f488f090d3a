//! The query for a list of jobs.

use sqlx::{QueryBuilder, Sqlite};

use super::rows::RECORD_COLUMNS;
use crate::store::types::JobFilter;

/// The names of all states.
const STATES: [&str; 4] = ["pending", "running", "succeeded", "failed"];

/// The newest jobs of each state, by its index, and of these the newest: the rows that are looked at are no more than
/// four times those that are asked for, however many jobs there are.
pub(super) fn listing(filter: JobFilter) -> QueryBuilder<Sqlite> {
    let mut query = QueryBuilder::new("SELECT ");
    query.push(RECORD_COLUMNS).push(" FROM jobs WHERE TRUE");
    let by_state = filter.user_id.is_some() || !filter.states.is_empty();
    if by_state {
        let states = if filter.states.is_empty() { STATES.to_vec() } else { filter.states };
        query.push(" AND job_id IN (");
        for (index, state) in states.into_iter().enumerate() {
            query.push(if index == 0 { "" } else { " UNION ALL " });
            query.push("SELECT * FROM (SELECT job_id FROM jobs WHERE state = ").push_bind(state);
            if let Some(user) = &filter.user_id {
                query.push(" AND user_id = ").push_bind(user.clone());
            }
            if let Some(before) = &filter.before {
                query.push(" AND job_id < ").push_bind(before.to_string());
            }
            query.push(" ORDER BY job_id DESC LIMIT ").push_bind(filter.limit).push(")");
        }
        query.push(")");
    } else if let Some(before) = &filter.before {
        query.push(" AND job_id < ").push_bind(before.to_string());
    }
    query.push(" ORDER BY job_id DESC LIMIT ").push_bind(filter.limit);
    query
}
