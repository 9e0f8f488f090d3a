//! Kept output in Pods: models that could not be published.

use sqlflow_proto::v1::Token;
use sqlflow_proto::v1::response::Response as Payload;
use sqlflow_tests::client::Ended;
use sqlflow_tests::cluster::{HOST, Namespace};
use sqlflow_tests::python;
use sqlflow_tests::server::Setup;
use sqlflow_tests::services::{Hdfs, Mariadb, PASSWORD};

use crate::jobs::{LOAD, TRAIN};
use crate::said;

/// A database to train from, and an HDFS folder with an exhausted quota.
struct World {
    namespace: Namespace,
    hdfs: Hdfs,
    database: Mariadb,
}

impl World {
    fn new(name: &str) -> Self {
        let (hdfs, database) = (Hdfs::start_on(HOST), Mariadb::start_on(HOST));
        let port = database.dsn.split(':').next_back().unwrap().split(')').next().unwrap().to_owned();
        python::run(LOAD, &[HOST, &port, PASSWORD]).unwrap();
        let world = Self { namespace: Namespace::new(name), hdfs, database };
        world.hdfs(&["dfs", "-mkdir", "-p", "/models"]);
        world.hdfs(&["dfsadmin", "-setSpaceQuota", "1", "/models"]);
        world
    }

    fn hdfs(&self, arguments: &[&str]) {
        let (code, text) = self.hdfs.command(arguments);
        assert_eq!(code, Some(0), "{text}");
    }

    /// A server whose agents retry publishing for this time.
    fn setup(&self, retry_seconds: u32) -> Setup {
        let template = format!(
            "spec: {{containers: [{{name: submitter, env: [{{name: HADOOP_USER_NAME, value: root}},
               {{name: SQLFLOW_AGENT_PUBLISH_RETRY, value: '{retry_seconds}'}}]}}]}}"
        );
        let models = format!("--models=hdfs://{HOST}:{}/models", self.hdfs.port);
        self.namespace.setup(&self.database.dsn, &template).flag(models)
    }
}

fn trainings(ended: &Ended) -> usize {
    said(ended).matches("train-").count()
}

/// OSMO#764, A#11241: a Pod is terminated while it cannot finish its upload. The output is on a claim, so another Pod
/// publishes it. The claim is removed with the step.
#[tokio::test(flavor = "multi_thread")]
async fn unpublished_model_on_a_claim_is_published_by_another_pod() {
    let world = World::new("claimed");
    let namespace = &world.namespace;
    let volume = format!("{}-0", namespace.name);
    let host_path = namespace.dir().join("volume");
    std::fs::create_dir(&host_path).unwrap();
    std::fs::set_permissions(&host_path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    // The cluster has no provisioner, so the test creates the volume.
    namespace.apply(&format!(
        "apiVersion: v1\nkind: PersistentVolume\nmetadata: {{name: {volume}}}\nspec: {{storageClassName: {0}, capacity: {{storage: 1Gi}},
           accessModes: [ReadWriteOnce], persistentVolumeReclaimPolicy: Retain, hostPath: {{path: {1}}}}}\n",
        namespace.name,
        host_path.display()
    ));
    let claim = namespace.dir().join("claim.yaml");
    let spec = format!("{{storageClassName: {}, resources: {{requests: {{storage: 1Gi}}}}}}", namespace.name);
    std::fs::write(&claim, spec).unwrap();

    let setup = world.setup(600).flag(format!("--workspace-claim={}", claim.display())).flag("--grace=3s");
    let server = setup.start().unwrap();
    let mut client = server.client().await.unwrap();
    let token = client.run(TRAIN).await.unwrap();
    let trained = |it: &Payload| matches!(it, Payload::Log(chunk) if String::from_utf8_lossy(&chunk.data).contains("round 2/2"));
    client.until(&token, trained).await.unwrap();
    let pod = namespace.running_pod();
    let name = pod["metadata"]["name"].as_str().unwrap();
    namespace.wait_for("an upload that is refused", || {
        namespace.kubectl(&["logs", name]).contains("storage failed; retrying")
    });
    namespace.kubectl(&["delete", "pod", name, "--wait=false"]);
    let is_reported = |it: &Payload| matches!(it, Payload::Message(message) if message.message.contains("what attempt 1 made will be published by attempt 2"));
    client.until(&token, is_reported).await.unwrap();
    // The first Pod is removed, and its claim is kept.
    namespace.wait_for("the second Pod alone", || {
        let names: Vec<_> = namespace.pods().iter().map(|it| it["metadata"]["name"].to_string()).collect();
        names.len() == 1 && names[0].ends_with("-2\"")
    });
    let claims = namespace.kubectl(&["get", "persistentvolumeclaims", "-o", "json"]);
    let claims: serde_json::Value = serde_json::from_str(&claims).unwrap();
    assert_eq!(claims["items"].as_array().unwrap().len(), 1, "{claims}");
    assert!(claims["items"][0]["metadata"]["deletionTimestamp"].is_null(), "{claims}");
    world.hdfs(&["dfsadmin", "-clrSpaceQuota", "/models"]);

    let from_the_start = Token { token: format!("{}.0", token.token), ..token };
    let ended = client.follow(&from_the_start).await.unwrap();
    ended.expect_success();
    assert_eq!(trainings(&ended), 2, "it was trained again: {}", said(&ended));
    world.hdfs(&["dfs", "-test", "-e", "/models/flowers.m/flowers.m.tar.gz"]);
    namespace.wait_for("no Pod and no claim", || {
        namespace.pods().is_empty()
            && namespace.kubectl(&["get", "persistentvolumeclaims", "-o", "name"]).is_empty()
    });
    namespace.kubectl(&["delete", "persistentvolume", &volume]);
}

/// Without a claim the output is lost with the Pod.
#[tokio::test(flavor = "multi_thread")]
async fn model_lost_with_its_pod_is_reported() {
    let world = World::new("unclaimed");
    let server = world.setup(0).start().unwrap();
    let mut client = server.client().await.unwrap();
    let token = client.run(TRAIN).await.unwrap();
    let ended = client.follow(&token).await.unwrap();
    let message = &ended.status.message;
    for words in
        ["flowers.m could not be published", "quota", "what the command made is lost with its workspace"]
    {
        assert!(message.contains(words), "{words}: {message}");
    }
    assert_eq!(trainings(&ended), 2);
}
