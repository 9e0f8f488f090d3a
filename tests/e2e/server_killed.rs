//! The server is killed at random moments. Every result is delivered, and every effect happens once.

use std::time::Duration;

use sqlflow_proto::v1::response::Response as Payload;
use sqlflow_proto::v1::{Response, Token, job_status::Code};
use sqlflow_tests::client::{Client, is_over};
use sqlflow_tests::positions;
use sqlflow_tests::python;
use sqlflow_tests::server::{Server, Setup};

/// Number of kills; `make drill` sets a larger one.
fn kills() -> u32 {
    std::env::var("SQLFLOW_DRILL_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(6)
}

/// Three statements whose effects and rows can be counted.
fn program(round: u32) -> String {
    format!(
        "INSERT INTO marks VALUES ({round}); SELECT * FROM numbers;
         SELECT * FROM iris TO TRAIN xgboost.gbtree WITH objective = \"multi:softmax\", num_class = 3 LABEL class INTO m{round};
         SELECT count(*) FROM marks WHERE round = {round}; SELECT * FROM numbers;"
    )
}

struct Bench {
    setup: Setup,
    server: Option<Server>,
    _dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("iris.db");
        let datasource = python::iris(&file).unwrap();
        python::run(
            "import sqlite3, sys; c = sqlite3.connect(sys.argv[1])
c.execute('CREATE TABLE marks (round INTEGER)'); c.execute('CREATE TABLE numbers (n INTEGER)')
c.executemany('INSERT INTO numbers VALUES (?)', ((n,) for n in range(20000))); c.commit()",
            &[file.to_str().unwrap()],
        )
        .unwrap();
        let setup = Setup::new(dir.path(), datasource);
        let server = Some(setup.start().unwrap());
        Self { setup, server, _dir: dir }
    }

    async fn client(&self) -> Client {
        self.server.as_ref().unwrap().client().await.unwrap()
    }

    fn kill_and_restart(&mut self) {
        self.server.take().unwrap().kill();
        self.server = Some(self.setup.start().unwrap());
    }
}

/// Drops repeated results, and asserts that they are equal. A plain token's page is repeated if the server died before
/// it knew that the page had arrived.
fn without_repeats(results: Vec<Response>) -> Vec<Response> {
    let mut seen = std::collections::BTreeMap::new();
    for result in results {
        let earlier = seen.entry(result.position).or_insert_with(|| result.clone());
        assert_eq!(*earlier, result, "a repeated result differs");
    }
    seen.into_values().collect()
}

/// Asserts contiguous positions, all rows once, the effect once, and every byte of the log once.
fn check(results: &[Response]) {
    positions::expect_all(results.iter().map(|it| it.position));
    let mut numbers = Vec::<i64>::new();
    let mut offsets = std::collections::BTreeMap::<(u32, u32, i32), u64>::new();
    for result in results {
        match result.response.as_ref().unwrap() {
            Payload::Rows(rows) => {
                let column = rows.decoded().unwrap().columns.remove(0).values.unwrap();
                if let sqlflow_proto::v1::column::Values::Int64s(values) = &column {
                    numbers.extend(&values.values);
                }
            }
            Payload::Log(log) => {
                let expected = offsets.entry((log.step, log.attempt, log.stream)).or_default();
                assert_eq!(log.offset, *expected, "bytes are lost or duplicated");
                *expected += log.data.len() as u64;
            }
            Payload::Gap(gap) => panic!("{gap:?}"),
            _ => {}
        }
    }
    let expected: Vec<i64> = (0..20_000).chain([1]).chain(0..20_000).collect();
    assert_eq!(numbers, expected, "rows are lost or duplicated, or the mark was not inserted once");
}

/// Polls until the job's end. The server is killed after `delay`.
async fn fetch_through_kills(
    bench: &mut Bench,
    token: &Token,
    delay: Duration,
    cursors: bool,
) -> Vec<Response> {
    let mut client = bench.client().await;
    let mut cursor = token.clone();
    let mut results = Vec::new();
    let begun = tokio::time::Instant::now();
    let mut kill_at = Some(tokio::time::Instant::now() + delay);
    loop {
        if kill_at.is_some_and(|at| tokio::time::Instant::now() >= at) {
            kill_at = None;
            bench.kill_and_restart();
            // The connection is lost too.
            client = bench.client().await;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "the job does not end");
        let asked = if cursors { cursor.clone() } else { token.clone() };
        let Ok(page) = client.api.fetch(asked).await else {
            client = bench.client().await;
            continue;
        };
        let page = page.into_inner();
        let status = page.job_status.unwrap_or_default();
        let is_empty = page.results.is_empty();
        results.extend(page.results);
        cursor = page.next.unwrap();
        if is_over(&status) {
            assert_eq!(status.code(), Code::Succeeded, "{status:?}");
            return results;
        }
        if is_empty {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

async fn drill(cursors: bool) {
    let mut bench = Bench::new();
    for round in 0..kills() {
        let token = bench.client().await.run(program(round)).await.unwrap();
        // A whole job takes about a second and a half.
        let delay = Duration::from_millis(rand::random_range(0..1500));
        let results = fetch_through_kills(&mut bench, &token, delay, cursors).await;
        check(&if cursors { results } else { without_repeats(results) });
        let model = bench.setup.state_dir.join(format!("models/m{round}/m{round}.tar.gz"));
        assert!(model.is_file(), "{}", model.display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn client_with_cursors_gets_every_result_once() {
    drill(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn client_with_a_plain_token_gets_every_result() {
    drill(false).await;
}
