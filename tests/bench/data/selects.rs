//! SELECT of whole tables: Run → last row at the client, beside `fetchall` of Python's usual driver. Ours includes the
//! start of two programs, rows that are made durable on their way, and three hops between processes; the client decodes
//! all values. The peer is one process that keeps nothing, and makes a Python object of each value.

use std::time::Instant;

use super::{Database, Ours, script};
use crate::arguments::Scale;
use crate::measure::{Goal, Measurement};
use crate::rows::{per_second, select};

/// Each table in turn.
pub async fn all(ours: &mut Ours, scale: &Scale) -> anyhow::Result<Vec<Measurement>> {
    let mut measured = Vec::new();
    for (table, title) in [("narrow", "4"), ("texts", "4 texts"), ("wide", "21 numbers")] {
        let sql = format!("SELECT * FROM {table}");
        let key = format!("select_{table}_{}", ours.database.key());
        let peer = format!("{key}_python");
        let what = format!("{}: SELECT of {} rows × {title}, durable", ours.database.title(), scale.rows);
        let rate = Measurement::new(key, "rows/s", what);
        let has_goal = table == "narrow" && matches!(ours.database, Database::Sqlite(_));
        let mut rate =
            if has_goal { rate.goal_beside(Goal::AtLeast(2.0), &peer) } else { rate.beside(&peer) };
        let mut python =
            Measurement::new(peer, "rows/s", format!("  {}'s fetchall in Python", ours.database.driver()));
        for _ in 0..scale.selects {
            let begun = Instant::now();
            select(&mut ours.client, &sql, scale.rows).await?;
            rate.add(per_second(scale.rows.into(), begun));
            python.add(script::fetch_all(&ours.database, &sql)?);
        }
        measured.extend([rate, python]);
    }
    Ok(measured)
}
