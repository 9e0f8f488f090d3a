//! Jobs that succeed, and the resources of their Pods.

use sqlflow_proto::v1::job_status::Code;
use sqlflow_tests::cluster::{AGENT_IMAGE, Cluster, HOST, Namespace};
use sqlflow_tests::python;
use sqlflow_tests::services::{Hdfs, Mariadb, PASSWORD};

use crate::{SQLITE, said};

pub(crate) const TRAIN: &str = r#"SELECT * FROM iris -- a remark that nobody prints
TO TRAIN xgboost.gbtree WITH objective = "multi:softmax", num_class = 3, train.num_boost_round = 2
LABEL class INTO flowers.m;"#;
pub(crate) const PREDICT: &str = "SELECT * FROM iris TO PREDICT iris_predicted.class USING flowers.m;
SELECT class, count(*) FROM iris_predicted GROUP BY class;";

pub(crate) const LOAD: &str = "import sys, pymysql
from sklearn.datasets import load_iris
data = load_iris()
host, port, password = sys.argv[1:]
connection = pymysql.connect(host=host, port=int(port), user='u', password=password, database='test', autocommit=True)
cursor = connection.cursor()
cursor.execute('CREATE TABLE iris (sepal_length DOUBLE, sepal_width DOUBLE, petal_length DOUBLE, petal_width DOUBLE, class INT)')
rows = [(*map(float, row), int(label)) for row, label in zip(data.data, data.target)]
cursor.executemany('INSERT INTO iris VALUES (%s, %s, %s, %s, %s)', rows)";

/// The main job of the design: one Pod writes the model to HDFS, and another reads it. AF#17604, A#8685: the password
/// and the program are in no Pod spec and no container's log.
#[tokio::test(flavor = "multi_thread")]
async fn model_is_trained_in_one_pod_and_used_in_another() {
    let namespace = Namespace::new("train");
    let hdfs = Hdfs::start_on(HOST);
    let database = Mariadb::start_on(HOST);
    let port = database.dsn.split(':').next_back().unwrap().split(')').next().unwrap().to_owned();
    python::run(LOAD, &[HOST, &port, PASSWORD]).unwrap();
    let template = "spec: {containers: [{name: submitter, env: [{name: HADOOP_USER_NAME, value: root}]}]}";
    let models = format!("--models=hdfs://{HOST}:{}/sqlflow/models", hdfs.port);
    let server = namespace.setup(&database.dsn, template).flag(models).start().unwrap();
    let mut client = server.client().await.unwrap();

    let token = client.run(TRAIN).await.unwrap();
    let pod = namespace.running_pod();
    let specs = namespace.kubectl(&["get", "pods", "-o", "yaml"]);
    let logs = namespace.kubectl(&["logs", pod["metadata"]["name"].as_str().unwrap()]);
    for text in [&specs, &logs] {
        for secret in ["hunter2", PASSWORD, "remark", "num_boost_round", "iris"] {
            assert!(!text.contains(secret), "{secret} is in {text}");
        }
    }
    assert!(serde_json::to_string(&pod["spec"]).unwrap().len() < 10_000);
    client.follow(&token).await.unwrap().expect_success();

    let token = client.run(PREDICT).await.unwrap();
    client.follow(&token).await.unwrap().expect_success();
    // SF#1824: Pods do not accumulate.
    namespace.wait_for("an empty namespace", || namespace.pods().is_empty());
    let (_, listed) = hdfs.command(&["dfs", "-ls", "-R", "-C", "/sqlflow/models"]);
    for file in ["flowers.m/flowers.m.tar.gz", "flowers.m/sqlflow.gob"] {
        assert!(listed.contains(file), "{listed}");
    }
}

/// An init container copies the agent into the Pod.
#[tokio::test(flavor = "multi_thread")]
async fn image_without_an_agent_runs_jobs() {
    let namespace = Namespace::new("inject");
    let setup = namespace.setup(SQLITE, "{}").flag(format!("--pod-agent-image={AGENT_IMAGE}"));
    let server = setup.start().unwrap();
    let mut client = server.client().await.unwrap();
    let token = client.run("SELECT 1;").await.unwrap();
    client.follow(&token).await.unwrap().expect_success();
}

/// A#15471, A#4065: the program is larger than an argument or an object in etcd may be.
#[tokio::test(flavor = "multi_thread")]
async fn program_of_megabytes_runs() {
    let namespace = Namespace::new("large");
    let server = namespace.setup(SQLITE, "{}").start().unwrap();
    let mut client = server.client().await.unwrap();
    let text = "x".repeat(9 << 20);
    let token = client.run(format!("SELECT length('{text}') AS n;")).await.unwrap();
    let ended = client.follow(&token).await.unwrap();
    ended.expect_success();
    let pods = Cluster::shared().kubectl(&["-n", &namespace.name, "get", "pods", "-o", "json"]);
    assert!(pods.len() < 20_000, "{}", pods.len());
    assert!(!said(&ended).contains("xxxx"));
}

/// Within what the operator allows.
#[tokio::test(flavor = "multi_thread")]
async fn statement_sets_cpu_and_memory_of_its_pod() {
    let namespace = Namespace::new("resources");
    let server = namespace.setup(SQLITE, "{}").start().unwrap();
    let mut client = server.client().await.unwrap();
    let train = |attributes: &str| {
        format!("SELECT 1 AS a, 1 AS class TO TRAIN xgboost.gbtree WITH {attributes} LABEL class INTO m;")
    };
    let token = client.run(train("pod.memory = \"300Mi\", pod.cpu = 0.5")).await.unwrap();
    let mut pods = Vec::new();
    namespace.wait_for("a Pod", || {
        pods = namespace.pods();
        !pods.is_empty()
    });
    let resources = &pods[0]["spec"]["containers"][0]["resources"];
    assert_eq!(
        (&resources["limits"]["memory"], &resources["requests"]["cpu"]),
        (&"300Mi".into(), &"500m".into())
    );
    client.api.cancel(token).await.unwrap();

    let token = client.run(train("pod.image = \"else/where\"")).await.unwrap();
    let ended = client.follow(&token).await.unwrap();
    assert!(
        ended.status.message.contains("does not let statements set pod.image"),
        "{}",
        ended.status.message
    );
    let refused = client.run(train("pod.memory = \"much\"")).await.unwrap_err();
    assert!(refused.message().contains("expected a quantity such as 2, 500m or 4Gi"), "{refused}");
}

/// No node of this cluster has GPUs, so only the Pod's spec is checked.
#[tokio::test(flavor = "multi_thread")]
async fn statement_sets_image_and_gpu_if_allowed() {
    let namespace = Namespace::new("own-image");
    let setup = namespace.setup(SQLITE, "{}").flag("--pod-attributes=image,gpu");
    let server = setup.start().unwrap();
    let mut client = server.client().await.unwrap();
    let program = "SELECT 1 AS a, 1 AS class TO TRAIN xgboost.gbtree WITH pod.image = \"else/where\", pod.gpu = 2 LABEL class INTO m;";
    let token = client.run(program).await.unwrap();
    let mut pods = Vec::new();
    namespace.wait_for("a Pod", || {
        pods = namespace.pods();
        !pods.is_empty()
    });
    let container = &pods[0]["spec"]["containers"][0];
    assert_eq!(container["image"], "else/where");
    assert_eq!(container["resources"]["limits"]["nvidia.com/gpu"], "2", "{container}");
    client.api.cancel(token.clone()).await.unwrap();
    assert_eq!(client.follow(&token).await.unwrap().status.code(), Code::Failed);
}

/// The image has the bytecode of all that a step imports: Python does not compile it at each start.
#[tokio::test(flavor = "multi_thread")]
async fn python_in_a_pod_compiles_nothing() {
    let namespace = Namespace::new("bytecode");
    let template = "spec: {containers: [{name: submitter, env: [{name: PYTHONVERBOSE, value: '1'}]}]}";
    let server = namespace.setup(SQLITE, template).start().unwrap();
    let mut client = server.client().await.unwrap();
    let program = "SELECT 1 AS a, 2 AS y UNION ALL SELECT 2, 4 TO TRAIN xgboost.gbtree LABEL y INTO m;";
    let token = client.run(program).await.unwrap();
    let ended = client.follow(&token).await.unwrap();
    // It has trained; there is no storage of models.
    assert!(ended.status.message.contains("could not be published"), "{:?}", ended.status);
    python::expect_only_bytecode(
        &said(&ended),
        &["/opt/sqlflow/", "/opt/packages/numpy/", "/usr/lib/python3"],
    );
}
