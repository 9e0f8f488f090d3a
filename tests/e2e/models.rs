//! Statements about models: list, describe, replace and drop.

use sqlflow_proto::v1::response::Response as Payload;
use sqlflow_proto::v1::{Cause, Model, Session, job_status};
use sqlflow_tests::client::{Client, Ended};
use sqlflow_tests::python;
use sqlflow_tests::server::Setup;

const TRAIN: &str = "SELECT * FROM iris TO TRAIN xgboost.gbtree
WITH objective = \"multi:softmax\", train.num_boost_round = 2 LABEL class INTO team/flowers;";

async fn run(client: &mut Client, sql: &str, user: &str) -> Ended {
    let session = Session { user_id: user.to_owned(), ..Session::default() };
    let token = client.run_in(sql, session).await.unwrap();
    client.follow(&token).await.unwrap()
}

async fn succeed(client: &mut Client, sql: &str, user: &str) -> Ended {
    let ended = run(client, sql, user).await;
    ended.expect_success();
    ended
}

fn model(ended: &Ended) -> Model {
    let mut models = ended.payloads().filter_map(|it| match it {
        Payload::Model(model) => Some(model.clone()),
        _ => None,
    });
    let model = models.next().expect("the job reports a model");
    assert!(models.next().is_none(), "a model is reported twice");
    model
}

#[tokio::test(flavor = "multi_thread")]
async fn model_is_listed_described_replaced_and_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let datasource = python::iris(&dir.path().join("iris.db")).unwrap();
    let server = Setup::new(dir.path(), datasource).start().unwrap();
    let mut client = server.client().await.unwrap();

    let none = succeed(&mut client, "SHOW MODELS;", "").await;
    assert_eq!(none.rows(), Vec::<Vec<String>>::new());
    let first = succeed(&mut client, TRAIN, "ana").await;
    assert_eq!(model(&first).replaced, None);
    let replaced = model(&succeed(&mut client, TRAIN, "bob").await).replaced.unwrap();
    assert_eq!(replaced.trained_by, "ana");
    assert!(replaced.made.unwrap().seconds > 1_700_000_000);

    let listed = succeed(&mut client, "SHOW MODELS;", "").await;
    let [row] = &listed.rows()[..] else { panic!("{:?}", listed.rows()) };
    assert_eq!(row[0], "team/flowers");
    assert!(row[1].parse::<u64>().unwrap() > 1000 && row[2].starts_with("20"), "{row:?}");
    let described = succeed(&mut client, "DESCRIBE MODEL team/flowers;", "").await;
    let has = |name: &str, value: &str| described.rows().iter().any(|row| row[0] == name && row[1] == value);
    for (name, value) in [
        ("model", "team/flowers"),
        ("estimator", "xgboost.gbtree"),
        ("objective", "multi:softmax"),
        ("label", "class"),
        ("trained by", "bob"),
        ("objective chosen", "as the statement says"),
    ] {
        assert!(has(name, value), "{name}: {:?}", described.rows());
    }

    // Models of later statements are checked before the first one trains.
    let train = TRAIN.replace("team/flowers", "other");
    let program = format!("{train} SELECT * FROM iris TO PREDICT p.class USING team/flowrs;");
    let refused = run(&mut client, &program, "").await;
    assert_eq!(refused.status.cause(), Cause::StatementFailed, "{}", refused.status.message);
    let message = &refused.status.message;
    assert!(
        message.starts_with("a later statement cannot run: model team/flowrs does not exist at"),
        "{message}"
    );
    assert!(message.ends_with("; did you mean team/flowers?"), "{message}");
    // So is whether later statements fit their models.
    for (later, why) in [
        (
            "SELECT sepal_length, class FROM iris TO PREDICT p.class USING team/flowers;",
            "statement 2 (TO PREDICT): the model's column ",
        ),
        (
            "SELECT * FROM iris TO EVALUATE team/flowers WITH validation.metrics = \"rmse\" LABEL class;",
            "statement 2 (TO EVALUATE): metric rmse does not exist",
        ),
    ] {
        let refused = run(&mut client, &format!("{train} {later}"), "").await;
        assert_eq!(refused.status.cause(), Cause::StatementFailed, "{}", refused.status.message);
        assert!(refused.status.message.starts_with(why), "{}", refused.status.message);
    }
    assert_eq!(succeed(&mut client, "SHOW MODELS;", "").await.rows().len(), 1, "nothing was trained");

    let dropped = succeed(&mut client, "DROP MODEL team/flowers;", "").await;
    let gone = model(&dropped);
    assert!(gone.removed && gone.replaced.unwrap().trained_by == "bob");
    assert_eq!(succeed(&mut client, "SHOW MODELS;", "").await.rows().len(), 0);
    let missing = run(&mut client, "DROP MODEL team/flowers;", "").await;
    assert_eq!(missing.status.code(), job_status::Code::Failed);
    assert_eq!(missing.status.cause(), Cause::StatementFailed, "{}", missing.status.message);
    assert!(missing.status.message.contains("cannot drop model team/flowers"), "{}", missing.status.message);
    let if_exists = succeed(&mut client, "DROP MODEL IF EXISTS team/flowers;", "").await;
    assert!(model(&if_exists).removed);
}
