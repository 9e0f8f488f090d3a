//! The statements of a program that have started, each with the beginning of its result.

use maud::{Markup, html};
use sqlflow_job_store::JobRecord;
use sqlflow_text::mention::mention;

use super::chart::chart;
use super::format::{counted, duration, size};
use crate::web::statements::{Picture, Statement, Table};
use crate::web::view::JobView;

/// Characters of a statement in a short mention.
pub(super) const MENTION: usize = 100;
/// Up to this many statements are unfolded; of more, only the last ones and those that did not succeed.
const UNFOLDED: usize = 12;
const UNFOLDED_OF_MANY: usize = 3;
/// Media types that a page shows: they contain no script.
pub(super) const PICTURES: [&str; 4] = ["image/png", "image/jpeg", "image/gif", "image/webp"];

/// `display` is the address of a display at a position of the log.
pub(super) fn statements(record: &JobRecord, view: &JobView, display: &dyn Fn(u64) -> String) -> Markup {
    let count = view.statements.len();
    let first = view.statements.iter().next().map_or(0, |(index, _)| index);
    html! {
        @if count > 0 {
            section aria-labelledby="statements-title" {
                h2 #statements-title { "Statements" }
                @if first > 0 { p .dim { "The last " (count) " that have begun; " code { "sqlflowctl fetch" } " gives all." } }
                @for (at, (index, one)) in view.statements.iter().enumerate() {
                    @let is_open = count <= UNFOLDED || at + UNFOLDED_OF_MANY >= count;
                    (statement(index, one, record.job.state.name(), is_open, display))
                }
            }
        }
    }
}

fn statement(
    index: u32,
    one: &Statement,
    // The job's outcome, for a statement without a known end: that may be in a part of the log that was not read yet.
    of_job: &'static str,
    is_open: bool,
    display: &dyn Fn(u64) -> String,
) -> Markup {
    let state = if one.duration_micros.is_some() { "succeeded" } else { of_job };
    let mut facts = Vec::new();
    if one.rows > 0 || one.table.is_some() {
        facts.push(counted(one.rows, "row"));
    }
    if one.rows > 0 && one.table.is_none() {
        facts.push("not kept here".to_owned());
    }
    if let Some(changed) = one.rows_affected {
        facts.push(format!("{} changed", counted(changed, "row")));
    }
    if let Some(micros) = one.duration_micros {
        facts.push(duration(i64::try_from(micros / 1000).unwrap_or(i64::MAX)));
    }
    let heading = one.heading.as_deref().map(|it| mention(it, MENTION)).unwrap_or_default();
    let has_more = one.table.as_ref().is_some_and(|it| !it.rows.is_empty())
        || !(one.measured.is_empty() && one.texts.is_empty() && one.pictures.is_empty())
        || one.curves.len() > 0;
    let title = html! {
        span .number { (index + 1) } " "
        @if state != "succeeded" { span class={ "badge " (state) } { (state) } " " }
        @if !heading.is_empty() { code { (heading) } " " }
        span .dim { (facts.join(", ")) }
    };
    let id = format!("statement-{}", index + 1);
    html! {
        @if has_more {
            details .statement id=(id) open[is_open] {
                summary { (title) }
                @if let Some(table) = &one.table { (rows(index, table, one.rows)) }
                @if !one.measured.is_empty() && one.table.is_none() { (measured(&one.measured)) }
                @if one.curves.len() > 0 {
                    div .curves {
                        @for (measure, lines) in one.curves.charts() { (chart(measure, &lines, one.curves.kept)) }
                    }
                }
                @for text in &one.texts { pre tabindex="0" { (text) } }
                @for (at, it) in one.pictures.iter().enumerate() { (picture(index, at, it, display)) }
            }
        } @else { p .statement id=(id) { (title) } }
    }
}

fn rows(index: u32, table: &Table, all: u64) -> Markup {
    if table.rows.is_empty() {
        return html! {};
    }
    let shown = table.rows.len();
    let is_part = (shown as u64) < all;
    html! {
        div .scrolls id={ "rows-" (index + 1) } tabindex="0" role="region" aria-label={ "Rows of statement " (index + 1) } {
            table {
                @if is_part { caption { "The first " (counted(shown as u64, "row")) " of " (all) } }
                thead { tr {
                    @for (at, name) in table.names.iter().enumerate() {
                        th scope="col" .number[table.numbers.get(at) == Some(&true)] { (name) }
                    }
                } }
                tbody {
                    @for row in &table.rows { tr {
                        @for (at, cell) in row.iter().enumerate() {
                            td .number[table.numbers.get(at) == Some(&true)] { (cell) }
                        }
                    } }
                }
            }
        }
        @if table.more_columns > 0 { p .dim { "And " (counted(table.more_columns as u64, "column")) " more." } }
    }
}

fn measured(values: &[(String, f64)]) -> Markup {
    html! { dl .facts { @for (name, value) in values { dt { (name) } dd { (value) } } } }
}

fn picture(index: u32, at: usize, it: &Picture, display: &dyn Fn(u64) -> String) -> Markup {
    let address = display(it.position);
    html! {
        @if PICTURES.contains(&it.media_type.as_str()) {
            p { img src=(address) alt={ "Picture " (at + 1) " of statement " (index + 1) } loading="lazy"; }
        } @else {
            p { a href=(address) download { "Download " (it.media_type) ", " (size(it.bytes as u64)) } }
        }
    }
}
