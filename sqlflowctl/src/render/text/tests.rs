use sqlflow_proto::v1::job_status::Code;
use sqlflow_proto::v1::{
    Column, EarlierModel, Head, Int64s, LogChunk, Message, Metric, Progress, Rows, column::Values,
    message::Kind as About, response::Response as Kind,
};

use super::super::test_screen::TestScreen;
use super::*;

fn show(quiet: bool, kinds: Vec<Kind>) -> TestScreen {
    let mut screen = TestScreen::default();
    let mut view = TextView::new("01j../x", quiet, Style::default());
    for (index, kind) in kinds.into_iter().enumerate() {
        let response = Response {
            position: index as u64 + 1,
            statement: Some(0),
            time: Some(prost_types::Timestamp { seconds: 100 + index as i64, nanos: 0 }),
            response: Some(kind),
        };
        view.show(&response, &mut screen).unwrap();
    }
    screen
}

fn head() -> Kind {
    Kind::Head(Head { column_names: vec!["n".into()], column_types: vec![] })
}

fn rows(values: Vec<i64>) -> Kind {
    let count = values.len() as u32;
    let column = Column { values: Some(Values::Int64s(Int64s { values })), ..Column::default() };
    Kind::Rows(Rows { count, columns: vec![column] }.into())
}

fn end(rows_affected: Option<u64>) -> Kind {
    Kind::Eoe(EndOfExecution { sql: String::new(), spent_time_seconds: 7, rows_affected })
}

fn log(text: &str) -> Kind {
    Kind::Log(LogChunk { data: text.to_owned().into(), ..LogChunk::default() })
}

fn message(about: About, text: &str) -> Kind {
    Kind::Message(Message { message: text.into(), kind: about.into() })
}

fn stderr(text: &str) -> Kind {
    Kind::Log(LogChunk { data: text.to_owned().into(), stream: Stream::Stderr.into(), ..LogChunk::default() })
}

/// The output for pages of which the last one ends the job with this message.
fn pages(pages: Vec<Vec<Kind>>, code: Code, end: &str) -> TestScreen {
    let mut screen = TestScreen::default();
    let mut view = TextView::new("01j", false, Style::default());
    let count = pages.len();
    for (index, page) in pages.into_iter().enumerate() {
        for kind in page {
            let response = Response { response: Some(kind), ..Response::default() };
            view.show(&response, &mut screen).unwrap();
        }
        let status = if index + 1 == count {
            JobStatus { code: code.into(), message: end.into(), ..JobStatus::default() }
        } else {
            JobStatus { code: Code::Running.into(), ..JobStatus::default() }
        };
        view.status(&status, "", &mut screen).unwrap();
    }
    screen
}

#[test]
fn error_is_shown_once_in_the_final_sentence() {
    let error = "no such table: nope";
    for about in [About::End, About::Unspecified] {
        let ended = || message(about, error);
        for said in [
            vec![vec![stderr(error), stderr("\n"), ended()]],
            vec![vec![stderr("no such table: nope\n")], vec![ended()]],
            vec![vec![stderr("no such table: nope\n")], vec![], vec![], vec![ended()]],
            vec![vec![stderr("no such table: nope")], vec![stderr("\n")], vec![], vec![ended()]],
            vec![vec![stderr("no such ")], vec![stderr("table: nope")], vec![stderr("\n")], vec![ended()]],
        ] {
            let screen = pages(said, Code::Failed, error);
            assert_eq!((screen.log.as_str(), screen.lines.len()), ("", 0), "{screen:?}");
        }
    }
    let late = vec![vec![stderr("no such table: nope\n")], vec![message(About::End, error)], vec![], vec![]];
    let screen = pages(late, Code::Failed, error);
    assert_eq!((screen.log.as_str(), screen.lines.len()), ("", 0), "the state follows late: {screen:?}");
}

#[test]
fn output_not_in_the_final_sentence_is_shown() {
    let error = "no such table: nope";
    let ended = |text| message(About::End, text);
    let warned =
        pages(vec![vec![stderr("a warning\nno such table: nope\n"), ended(error)]], Code::Failed, error);
    assert_eq!((warned.log.as_str(), warned.lines.len()), ("a warning\n", 0));
    let other = pages(vec![vec![stderr("one\n"), ended("three")]], Code::Failed, "three");
    assert_eq!((other.log.as_str(), other.lines.len()), ("one\n", 0));
    let pending = pages(vec![vec![message(About::Status, "waits")], vec![]], Code::Failed, "waits");
    assert_eq!(pending.lines, ["waits"]);
    let won = pages(vec![vec![ended("the job succeeded")]], Code::Succeeded, "");
    assert!(won.lines.is_empty(), "{won:?}");
}

#[test]
fn error_named_by_a_retry_is_shown_once() {
    let retry = "warning: database is locked; step 1 is run again (attempt 2)";
    let screen = pages(
        vec![vec![stderr("database is locked\n")], vec![message(About::Warning, retry)], vec![]],
        Code::Succeeded,
        "",
    );
    assert_eq!((screen.log.as_str(), &screen.lines[..]), ("", &[retry.to_owned()][..]));
}

#[test]
fn final_message_is_shown_to_a_reader_who_leaves_before_it() {
    let mut screen = TestScreen::default();
    let mut view = TextView::new("01j", false, Style::default());
    let response = Response { response: Some(message(About::End, "cancelled")), ..Response::default() };
    view.show(&response, &mut screen).unwrap();
    view.status(&JobStatus::default(), "", &mut screen).unwrap();
    assert!(screen.lines.is_empty());
    view.left(&mut screen);
    assert_eq!(screen.lines, ["cancelled"]);
}

#[test]
fn stderr_is_held_for_some_quiet_pages_and_keeps_its_order() {
    let screen = pages(vec![vec![stderr("one ")], vec![stderr("two")], vec![log("!")]], Code::Running, "");
    assert_eq!(screen.log, "one two!");
    let mut quiet = vec![vec![stderr("one\n")]];
    quiet.resize_with(4, Vec::new);
    assert_eq!(pages(quiet.clone(), Code::Running, "").log, "");
    quiet.resize_with(9, Vec::new);
    assert_eq!(pages(quiet, Code::Running, "").log, "one\n");
}

#[test]
fn rows_and_logs_are_separate() {
    let screen = show(false, vec![head(), rows(vec![1]), log("training…"), rows(vec![2]), end(None)]);
    assert_eq!(screen.results, " n\n---\n 1\n 2\n");
    assert_eq!(screen.log, "training…");
    assert_eq!(screen.lines, ["2 rows (7.0 s)"]);
}

#[test]
fn tables_are_separated_and_an_empty_one_has_its_head() {
    let screen = show(false, vec![head(), end(None), head(), rows(vec![5]), end(None)]);
    assert_eq!(screen.results, " n\n---\n\n n\n---\n 5\n");
    assert_eq!(screen.lines, ["0 rows (7.0 s)", "1 row (7.0 s)"]);
}

#[test]
fn end_of_a_statement_has_row_count_and_duration() {
    let started = Kind::Started(StatementStarted { sql: "INSERT\n INTO t …".into() });
    let screen = show(false, vec![started, end(Some(1)), end(Some(3)), end(None)]);
    assert_eq!(
        screen.lines,
        ["statement 1: INSERT INTO t …", "1 row affected (1.0 s)", "3 rows affected (7.0 s)", "done (7.0 s)"]
    );
}

#[test]
fn progress_has_the_latest_metrics() {
    let progress =
        |done| Kind::Progress(Progress { phase: "train".into(), done, total: 3, unit: "rounds".into() });
    let metrics = |step, value| {
        Kind::Metrics(Metrics { step, metrics: vec![Metric { name: "loss".into(), value }], kept: false })
    };
    let screen =
        show(false, vec![progress(1), metrics(Some(1), 0.5), progress(2), metrics(None, 0.25), end(None)]);
    assert_eq!(
        screen.progress,
        ["train 1/3 rounds", "train 1/3 rounds  loss 0.5", "train 2/3 rounds  loss 0.5", "end", "end"]
    );
    assert_eq!(screen.lines, ["loss 0.25", "done (7.0 s)"]);
}

#[test]
fn metrics_shown_as_a_table_are_not_repeated() {
    let accuracy = || {
        Kind::Metrics(Metrics {
            kept: false,
            step: None,
            metrics: vec![Metric { name: "accuracy".into(), value: 1.0 }],
        })
    };
    let column_names = METRICS_TABLE.map(str::to_owned).to_vec();
    let table = Kind::Head(Head { column_names, column_types: vec![] });
    let next = Kind::Started(StatementStarted { sql: "SELECT".into() });
    let screen = show(false, vec![table, accuracy(), end(None), next, accuracy()]);
    assert_eq!(screen.lines, ["0 rows (7.0 s)", "statement 1: SELECT", "accuracy 1"]);
}

#[test]
fn quiet_shows_results_and_gaps_only() {
    let message = message(About::Status, "waits for a slot");
    let gap = || Kind::Gap(Gap { reason: "retention".into(), bytes: Some(2_500) });
    let screen = show(true, vec![message.clone(), log("x"), gap(), head(), rows(vec![1]), end(None)]);
    assert_eq!(screen.lines, ["[2.5 kB of output is missing here: retention]", "1 row (7.0 s)"]);
    assert_eq!((screen.log.as_str(), screen.results.as_str()), ("", " n\n---\n 1\n"));
    assert_eq!(show(false, vec![message, head()]).lines, ["waits for a slot"]);
}

#[test]
fn displays_are_printed_or_saved_with_a_safe_name() {
    let display = |media_type: &str, data: &'static str| {
        Kind::Display(Display { media_type: media_type.into(), data: data.into() })
    };
    let screen = show(false, vec![display("text/plain", "a\n\x1b[31mb"), display("image/png", "PNG")]);
    assert_eq!(screen.results, "a\n\\x1b[31mb\n");
    assert_eq!(screen.saved, ["sqlflow-01jx-2.png"]);
    assert_eq!(screen.lines, ["image/png, 3 B: saved 3 bytes"]);
}

#[test]
fn published_model_has_its_uri_and_size() {
    let model =
        Model { name: "m".into(), uri: "file:///models/m".into(), size_bytes: 1_234_567, ..Model::default() };
    assert_eq!(show(true, vec![Kind::Model(model)]).lines, ["model m published: file:///models/m (1.2 MB)"]);
}

#[test]
fn replaced_and_dropped_models_are_reported() {
    let earlier = |trained_by: &str| EarlierModel {
        made: Some(prost_types::Timestamp { seconds: 1_732_104_131, nanos: 0 }),
        trained_by: trained_by.to_owned(),
    };
    let line = |replaced, removed| {
        let model =
            Model { name: "m".into(), uri: "file:///m".into(), replaced, removed, ..Model::default() };
        show(true, vec![Kind::Model(model)]).lines.remove(0)
    };
    assert_eq!(
        line(Some(earlier("ana")), false),
        "model m published: file:///m (0 B); replaced model m, trained 2024-11-20 by ana"
    );
    assert_eq!(line(Some(earlier("")), true), "model m dropped: file:///m, trained 2024-11-20");
    assert_eq!(line(None, true), "model m did not exist: file:///m");
}

#[test]
fn sizes_round_to_the_next_unit() {
    assert_eq!(size(999), "999 B");
    assert_eq!(size(999_999), "1.0 MB");
    assert_eq!(size(u64::MAX), "18446744.1 TB");
}
