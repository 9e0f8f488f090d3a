//! Text of clients that would be code if it were a part of a Python program.

use std::fs;
use std::path::Path;

use sqlflow_proto::v1::{Cause, Session, job_status};
use sqlflow_tests::client::Client;
use sqlflow_tests::server::Setup;
use sqlflow_tests::{python, stand_in};
use tonic::Code;

/// With attributes that a program may continue.
const TRAIN: &str = "TO TRAIN xgboost.gbtree WITH objective = \"multi:softmax\", num_class = 3, \
                     train.num_boost_round = 1";

/// Text that ends a long string of Python and creates a file, and text that does so in a short string.
fn texts(created: &Path) -> [String; 2] {
    let code = format!("import os; os.system(\"touch {}\")", created.display());
    [format!("\"\"\"\n{code}\n\"\"\""), format!("'; {code}; '")]
}

/// Programs with this text, and where it is. There is a table with this name.
fn programs(text: &str) -> [(&'static str, String); 7] {
    let name = text.replace('"', "\"\"");
    let select = format!("SELECT * FROM iris WHERE '{}' <> ''", text.replace('\'', "''"));
    let in_string = |text: &str| text.replace('"', "\\\"");
    [
        ("literal of the select", format!("{select} {TRAIN} LABEL class INTO m;")),
        ("comment", format!("/* {text} */ SELECT * FROM iris {TRAIN} LABEL class INTO m;")),
        (
            "attribute",
            format!(
                "SELECT * FROM iris TO TRAIN xgboost.gbtree WITH objective = \"{}\" LABEL class INTO m;",
                in_string(text)
            ),
        ),
        (
            "validation.select",
            format!(
                "SELECT * FROM iris {TRAIN}, validation.select = \"{}\" LABEL class INTO m;",
                in_string(&select)
            ),
        ),
        (
            "columns",
            format!(
                "SELECT petal_length AS \"{name}\", class AS \"class {name}\" FROM iris {TRAIN} \
                 COLUMN `{text}` LABEL `class {text}` INTO m;"
            ),
        ),
        (
            "model",
            format!(
                "SELECT * FROM iris {TRAIN} LABEL class INTO `{text}`; \
                 SELECT * FROM iris TO PREDICT predicted.class USING `{text}`;"
            ),
        ),
        (
            "tables",
            format!(
                "SELECT * FROM \"{name}\" {TRAIN} LABEL class INTO m; \
                 SELECT * FROM iris TO PREDICT `predicted {text}`.class USING m;"
            ),
        ),
    ]
}

/// Runs a program for this user of the session. Returns its job; `None`: Run has refused the program. A job succeeds, or
/// fails by its statement.
async fn run(client: &mut Client, sql: &str, user_id: &str) -> Option<String> {
    let session = Session { user_id: user_id.to_owned(), ..Session::default() };
    let token = match client.run_in(sql, session).await {
        Ok(token) => token,
        Err(status) => {
            assert_eq!(status.code(), Code::InvalidArgument, "{sql}: {status:?}");
            return None;
        }
    };
    let ended = client.follow(&token).await.unwrap();
    let has_succeeded = ended.status.code() == job_status::Code::Succeeded;
    let is_usual = has_succeeded || ended.status.cause() == Cause::StatementFailed;
    assert!(is_usual, "{sql}: {:?}\n{}", ended.status, ended.log());
    Some(token.job_id)
}

#[tokio::test(flavor = "multi_thread")]
async fn text_of_a_client_does_not_become_python() {
    let dir = tempfile::tempdir().unwrap();
    let created = dir.path().join("created");
    let [long, short] = texts(&created);
    for source in [format!("\"\"\"A step: {long}\"\"\""), format!("title = '{short}'")] {
        python::run(&source, &[]).unwrap();
        fs::remove_file(&created).expect("otherwise this test proves nothing");
    }

    let file = dir.path().join("iris.db");
    let data_source = python::iris(&file).unwrap();
    for text in [&long, &short] {
        let sql = format!("CREATE TABLE \"{}\" AS SELECT * FROM iris", text.replace('"', "\"\""));
        rusqlite::Connection::open(&file).unwrap().execute_batch(&sql).unwrap();
    }
    // Keeps the program of each attempt as `<job>-<step>-<attempt>`.
    let kept = dir.path().join("programs");
    fs::create_dir(&kept).unwrap();
    let keep = format!(
        "case \"$*\" in *main.py*) cp main.py {}/$(echo \"$SQLFLOW_ATTEMPT\" | tr / -) || exit 9;; esac
        exec {} \"$@\"",
        kept.display(),
        python::program().display()
    );
    let python = stand_in::python_that(dir.path(), "python", &keep);
    let server = Setup::new(dir.path(), data_source)
        .flag(format!("--python={}", python.display()))
        // The file could be created.
        .flag("--confine=off")
        .start()
        .unwrap();
    let mut client = server.client().await.unwrap();

    let first_program = |job: &str| fs::read_to_string(kept.join(format!("{job}-0-1"))).unwrap();
    let usual = format!("SELECT * FROM iris {TRAIN} LABEL class INTO m;");
    let job = run(&mut client, &usual, "ana").await.unwrap();
    let program = first_program(&job);
    assert!(program.contains("run_step("), "{program}");
    for text in [&long, &short] {
        for (place, sql) in programs(text) {
            let job = run(&mut client, &sql, "ana").await;
            // These are valid, so they get as far as Python.
            if ["literal of the select", "comment"].contains(&place) {
                assert_eq!(first_program(&job.expect(place)), program, "{place}");
            }
        }
        run(&mut client, &usual, text).await;
    }
    for entry in fs::read_dir(&kept).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(fs::read_to_string(&path).unwrap(), program, "{}", path.display());
    }
    assert!(!created.exists(), "text of a client was executed");
}
