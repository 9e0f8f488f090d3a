//! Models of other users of the same server.

use sqlflow_tests::access::Tokens;
use sqlflow_tests::python;
use sqlflow_tests::server::Setup;
use tonic::Code;

use super::audit;
use super::other_principal::{Client, World, code, follow, named, program};

const TRAIN: &str = "SELECT * FROM iris TO TRAIN xgboost.gbtree WITH objective = \"multi:softmax\", num_class = 3, \
                     train.num_boost_round = 1 LABEL class INTO flowers;";

/// A server with flowers, and two places for jobs.
fn world_with_flowers() -> World {
    world_with_rules("")
}

/// With these rules for models.
fn world_with_rules(rules: &str) -> World {
    let dir = tempfile::tempdir().unwrap();
    let rights = dir.path().join("rights.toml");
    std::fs::write(&rights, rules).unwrap();
    let tokens = Tokens::at(dir.path(), &["ana", "bob", "op"]);
    let setup = Setup::new(dir.path(), python::iris(&dir.path().join("iris.db")).unwrap())
        .flag(tokens.flag())
        .flag("--admin=token:op")
        .flag(format!("--model-rights={}", rights.display()))
        .flag("--max-running=2");
    World { server: setup.start().unwrap(), tokens, dir }
}

/// Runs a program to its end; its failure.
async fn run(client: &mut Client, sql: &str) -> Result<Option<String>, tonic::Status> {
    let mut token = named(&client.run(program(sql)).await?.into_inner().token);
    loop {
        let page = client.fetch(token.clone()).await?.into_inner();
        let status = page.job_status.unwrap();
        if sqlflow_tests::client::is_over(&status) {
            let is_failed = status.code() == sqlflow_proto::v1::job_status::Code::Failed;
            return Ok(is_failed.then_some(status.message));
        }
        token = page.next.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn model_is_replaced_and_dropped_by_its_owner_only() {
    let world = world_with_flowers();
    let (mut ana, mut bob, mut op) = (world.of("ana").await, world.of("bob").await, world.of("op").await);
    assert_eq!(run(&mut ana, TRAIN).await.unwrap(), None);
    for sql in [TRAIN, "DROP MODEL flowers;", "DROP MODEL IF EXISTS flowers;"] {
        let refused = run(&mut bob, sql).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{sql}");
        assert!(refused.message().contains("the model flowers belongs to token:ana"), "{refused:?}");
    }
    // Reading it is everybody's.
    let shown =
        "SELECT * FROM iris LIMIT 3 TO PREDICT flowers_of_bob.class USING flowers; SHOW TRAIN flowers;";
    assert_eq!(run(&mut bob, shown).await.unwrap(), None);
    assert_eq!(run(&mut ana, TRAIN).await.unwrap(), None, "its owner replaces it");
    // An administrator replaces it, and it stays hers.
    assert_eq!(run(&mut op, TRAIN).await.unwrap(), None);
    assert_eq!(code(run(&mut bob, TRAIN).await), Code::PermissionDenied);
    assert_eq!(run(&mut op, "DROP MODEL flowers;").await.unwrap(), None);
    assert_eq!(run(&mut bob, TRAIN).await.unwrap(), None, "it is nobody's any more");
    assert_eq!(code(run(&mut ana, TRAIN).await), Code::PermissionDenied);

    let lines = audit::lines(world.dir.path());
    let models = lines.iter().filter(|it| it["model"] == "flowers");
    let models: Vec<_> =
        models.map(|it| (text(&it["principal"]), text(&it["action"]), text(&it["owner"]))).collect();
    let expected = [
        ("token:ana", "publish", ""),
        ("token:ana", "publish", ""),
        ("token:op", "publish", "token:ana"),
        ("token:op", "drop", "token:ana"),
        ("token:bob", "publish", ""),
    ];
    assert_eq!(models, expected);
}

fn text(value: &serde_json::Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn model_is_read_and_made_by_those_whom_the_rules_name() {
    let world = world_with_rules("['*']\nread = ['token:ana']\n['team/*']\ncreate = ['token:ana']");
    let (mut ana, mut bob) = (world.of("ana").await, world.of("bob").await);
    let train = |model: &str| TRAIN.replace("INTO flowers", &format!("INTO {model}"));
    assert_eq!(code(run(&mut bob, &train("team/flowers")).await), Code::PermissionDenied);
    for model in ["team/flowers", "hers"] {
        assert_eq!(run(&mut ana, &train(model)).await.unwrap(), None, "{model}");
    }
    assert_eq!(run(&mut bob, &train("his")).await.unwrap(), None);
    for of_another in ["SHOW TRAIN hers;", "DESCRIBE MODEL hers;"] {
        assert_eq!(code(run(&mut bob, of_another).await), Code::PermissionDenied, "{of_another}");
    }
    for own_or_shared in ["SHOW TRAIN his;", "SHOW TRAIN team/flowers;"] {
        assert_eq!(run(&mut bob, own_or_shared).await.unwrap(), None, "{own_or_shared}");
    }
    assert_eq!(run(&mut ana, "SHOW TRAIN his;").await.unwrap(), None);
    let key = bob.run(program("SHOW MODELS;")).await.unwrap().into_inner().token;
    let listed = follow(&mut bob, &key).await;
    assert!(
        listed.contains("his") && listed.contains("team/flowers") && !listed.contains("hers"),
        "{listed}"
    );
    // Nor does a suggestion name it.
    let failure = run(&mut bob, "DROP MODEL her;").await.unwrap().unwrap();
    assert!(!failure.contains("hers"), "{failure}");
    assert!(run(&mut ana, "DROP MODEL her;").await.unwrap().unwrap().contains("hers"), "her own");
}

/// The rules of `docs/security.md` that give each user a namespace.
#[tokio::test(flavor = "multi_thread")]
async fn models_are_made_below_the_name_of_their_owner_only() {
    let world = world_with_rules("['{user}/*']\n['*']\ncreate = []");
    let (mut ana, mut bob, mut op) = (world.of("ana").await, world.of("bob").await, world.of("op").await);
    let train = |model: &str| TRAIN.replace("INTO flowers", &format!("INTO {model}"));
    assert_eq!(run(&mut ana, &train("ana/flowers")).await.unwrap(), None);
    for model in ["flowers", "ana/flowers_of_bob", "bobs/flowers"] {
        let refused = run(&mut bob, &train(model)).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{model}");
        assert!(refused.message().ends_with("; use a name that begins with bob/"), "{refused:?}");
    }
    assert_eq!(code(run(&mut bob, "DROP MODEL ana/flowers;").await), Code::PermissionDenied);
    assert_eq!(run(&mut bob, &train("bob/flowers")).await.unwrap(), None);
    assert_eq!(run(&mut bob, "SHOW TRAIN ana/flowers;").await.unwrap(), None, "reading is everybody's");
    assert_eq!(run(&mut op, &train("flowers")).await.unwrap(), None, "an administrator");
}

/// Run cannot know which of two jobs will be the first to publish.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_jobs_for_one_new_model_one_publishes() {
    let world = world_with_flowers();
    let (mut ana, mut bob) = (world.of("ana").await, world.of("bob").await);
    let (anas, bobs) = tokio::join!(run(&mut ana, TRAIN), run(&mut bob, TRAIN));
    let failures: Vec<_> = [anas, bobs].into_iter().map(Result::unwrap).collect();
    let failed: Vec<&String> = failures.iter().flatten().collect();
    let [failure] = failed[..] else { panic!("one of them: {failures:?}") };
    assert!(failure.contains("the model flowers belongs to token:"), "{failure}");
}
