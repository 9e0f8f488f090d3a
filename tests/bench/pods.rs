//! In Pods: Run → first log line, and Run → first row of SELECT 1, compared with a bare Pod that prints a line.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use sqlflow_proto::v1::response::Response;
use sqlflow_tests::api_relay::ApiProxy;
use sqlflow_tests::client::Client;
use sqlflow_tests::cluster::{AGENT_IMAGE, Namespace, SUBMITTER_IMAGE};

use crate::measure::{Goal, Measurement, Relation, Statistic, millis};

/// It prints a line before it trains.
const TRAIN: &str = "SELECT 1 AS a, 1 AS class TO TRAIN xgboost.gbtree LABEL class INTO m;";
const DATA: &str = "sqlite:///tmp/own.db?mode=rwc";
const LONGEST: Duration = Duration::from_secs(60);

/// In turn: a job with the agent in the image, one with the agent from an init container, and the bare Pod.
pub async fn all(samples: usize) -> anyhow::Result<Vec<Measurement>> {
    let namespace = Namespace::new("bench");
    let api = Api { proxy: ApiProxy::start(namespace.dir()), namespace: namespace.name.clone() };
    // As where the agent's image is named: plain SQL runs on it alone.
    let sql_image = format!("--pod-sql-image={AGENT_IMAGE}");
    let server = namespace.setup(DATA, "{}").flag(sql_image).start()?;
    let injecting = Namespace::new("bench");
    let injecting_server =
        injecting.setup(DATA, "{}").flag(format!("--pod-agent-image={AGENT_IMAGE}")).start()?;
    let mut client = server.client().await?;
    let mut injecting_client = injecting_server.client().await?;

    let mut ours = Measurement::time("pod_run_to_first_log", "Pod: Run → first log line").beside("bare_pod");
    let mut injected =
        Measurement::time("injected_run_to_first_log", "Pod, agent injected: the same").beside("bare_pod");
    let mut row = Measurement::time("pod_run_to_first_row", "Pod: Run → first row of SELECT 1").compared(
        Statistic::Median,
        Relation::MoreThan("bare_pod".to_owned()),
        Some(Goal::AtMost(20.0)),
    );
    let mut bare = Measurement::time("bare_pod", "  bare Pod of that image: created → its line");
    let mut without =
        Measurement::time("volumeless_pod", "  the same without its account's token, so without any volume");
    for number in 0..samples {
        ours.add(first(TRAIN, is_log, &mut client, &namespace).await?);
        row.add(first("SELECT 1", is_rows, &mut client, &namespace).await?);
        bare.add(api.bare_pod(&format!("bare-{number}"), true)?);
        without.add(api.bare_pod(&format!("volumeless-{number}"), false)?);
        injected.add(first(TRAIN, is_log, &mut injecting_client, &injecting).await?);
    }
    Ok(vec![ours, injected, row, bare, without])
}

fn is_log(response: &Response) -> bool {
    matches!(response, Response::Log(_))
}

fn is_rows(response: &Response) -> bool {
    matches!(response, Response::Rows(_))
}

/// Run → first such result, in milliseconds. Then the job is ended.
async fn first(
    program: &str,
    is_it: fn(&Response) -> bool,
    client: &mut Client,
    namespace: &Namespace,
) -> anyhow::Result<f64> {
    let begin = Instant::now();
    let token = client.run(program).await?;
    let mut cursor = token.clone();
    let taken = loop {
        let page = client.api.fetch(cursor.clone()).await?.into_inner();
        if page.results.iter().filter_map(|it| it.response.as_ref()).any(is_it) {
            break millis(begin.elapsed());
        }
        cursor = page.next.unwrap_or(cursor);
        ensure!(begin.elapsed() < LONGEST, "nothing came");
    };
    client.api.cancel(token).await?;
    namespace.wait_for("an empty namespace", || namespace.pods().is_empty());
    Ok(taken)
}

/// The Kubernetes API without a process for each call.
struct Api {
    proxy: ApiProxy,
    namespace: String,
}

impl Api {
    fn call(&self, method: &str, path: &str, body: &str) -> anyhow::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.proxy.port))?;
        write!(
            stream,
            "{method} /api/v1/namespaces/{}/{path} HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.namespace,
            body.len()
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// Milliseconds from its creation until its line can be read. By default every Pod has its account's token. Because
    /// of that volume the kubelet checks again after 300 ms.
    fn bare_pod(&self, name: &str, token: bool) -> anyhow::Result<f64> {
        let pod = serde_json::json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name },
            "spec": {
                "restartPolicy": "Never",
                "automountServiceAccountToken": token,
                "securityContext": { "runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": { "type": "RuntimeDefault" } },
                "containers": [{
                    "name": "main", "image": SUBMITTER_IMAGE, "command": ["python3", "-c", "print('line')"],
                    "securityContext": { "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } },
                }],
            },
        });
        let begin = Instant::now();
        let made = self.call("POST", "pods", &pod.to_string())?;
        ensure!(made.contains("201"), "{made}");
        let name = format!("pods/{name}");
        loop {
            let log = self.call("GET", &format!("{name}/log"), "")?;
            if log.starts_with("HTTP/1.0 200") && log.contains("line") {
                break;
            }
            if begin.elapsed() > LONGEST {
                bail!("the bare Pod printed nothing: {log}");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let taken = millis(begin.elapsed());
        self.call("DELETE", &format!("{name}?gracePeriodSeconds=0"), "")?;
        Ok(taken)
    }
}
