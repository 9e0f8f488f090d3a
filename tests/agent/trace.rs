//! Spans, as a collector receives them. (Jaeger itself is asked in the tests of whole jobs.)

use std::net::SocketAddr;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::trace::v1::Span;
use sqlflow_tests::agent::Exec;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

struct Collector(mpsc::UnboundedSender<Span>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let resources = request.into_inner().resource_spans.into_iter();
        for span in resources.flat_map(|it| it.scope_spans).flat_map(|it| it.spans) {
            let _ = self.0.send(span);
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

async fn collector() -> (SocketAddr, mpsc::UnboundedReceiver<Span>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, spans) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let service = TraceServiceServer::new(Collector(sender));
        let connections = TcpListenerStream::new(listener);
        tonic::transport::Server::builder().add_service(service).serve_with_incoming(connections).await
    });
    (address, spans)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn run(exec: Exec, script: &'static str) -> sqlflow_tests::agent::Ended {
    tokio::task::spawn_blocking(move || exec.shell(script).end()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_is_one_tree_of_spans_in_the_trace_that_it_was_given() {
    let (address, mut spans) = collector().await;
    let exec = Exec::new().flags(["--trace", &format!("http://{address}")]).env("TRACEPARENT", PARENT);
    let ended = run(exec, "echo $TRACEPARENT; exit 3").await;
    assert_eq!(ended.code, Some(3), "{}", ended.stderr);
    let mut all = Vec::new();
    while let Ok(span) = spans.try_recv() {
        all.push(span);
    }
    assert!(all.iter().all(|it| hex(&it.trace_id) == PARENT[3..35]));
    let find = |name: &str| all.iter().find(|it| it.name == name).unwrap_or_else(|| panic!("no span {name}"));
    let attempt = find("attempt");
    assert_eq!(hex(&attempt.parent_span_id), PARENT[36..52]);
    let status = attempt.status.as_ref().unwrap();
    assert_eq!((status.code, status.message.as_str()), (2, "exited"), "the kind of its end, and no message");
    let phases: Vec<_> = ["fetch", "run", "drain", "report"].map(find).into();
    assert!(phases.iter().all(|it| it.parent_span_id == attempt.span_id));
    // They follow each other and make up the whole.
    assert_eq!(phases[0].start_time_unix_nano, attempt.start_time_unix_nano);
    assert!(phases.windows(2).all(|two| two[0].end_time_unix_nano == two[1].start_time_unix_nano));
    assert_eq!(phases[3].end_time_unix_nano, attempt.end_time_unix_nano);
    let command = format!("00-{}-{}-01\n", hex(&attempt.trace_id), hex(&find("run").span_id));
    assert_eq!(String::from_utf8(ended.stdout).unwrap(), command);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asked_for_no_trace_gets_none_and_without_a_collector_nothing_changes() {
    let (address, mut spans) = collector().await;
    let unsampled = format!("{}00", &PARENT[..53]);
    let exec = Exec::new().flags(["--trace", &format!("http://{address}")]).env("TRACEPARENT", &unsampled);
    assert_eq!(run(exec, "exit 0").await.code, Some(0));
    assert!(spans.try_recv().is_err());
    let ended = run(Exec::new().env("TRACEPARENT", PARENT), "echo $TRACEPARENT").await;
    assert_eq!(ended.stdout, format!("{PARENT}\n").as_bytes());
}

/// A collector that is not there, and one that takes everything and never answers.
#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_down_or_a_black_hole_changes_no_exit_code() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let hole = format!("http://{}", listener.local_addr().unwrap());
    for collector in ["http://127.0.0.1:9", &hole] {
        let ended = run(Exec::new().flags(["--trace", collector]), "exit 3").await;
        assert_eq!(ended.code, Some(3));
        assert!(ended.stderr.contains("spans are lost"), "{}", ended.stderr);
    }
}

/// As every program that sends spans is told of its collector. The command is another one, and the headers may hold a key.
#[tokio::test(flavor = "multi_thread")]
async fn the_standard_variables_are_for_the_agent_and_for_a_command_only_if_asked_for() {
    let (address, mut spans) = collector().await;
    let url = format!("http://{address}");
    let exec = || {
        let variables =
            [("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str()), ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=k")];
        Exec::new().envs(variables).env("OTEL_RESOURCE_ATTRIBUTES", "team=ml").env("TRACEPARENT", PARENT)
    };
    let shows = "env | grep ^OTEL_ | sort";
    let ended = run(exec(), shows).await;
    assert_eq!(
        String::from_utf8(ended.stdout).unwrap(),
        "OTEL_RESOURCE_ATTRIBUTES=team=ml\n",
        "{}",
        ended.stderr
    );
    assert_eq!(hex(&spans.try_recv().unwrap().trace_id), PARENT[3..35]);
    let ended = run(exec().flags(["--trace-command"]), shows).await;
    let shown = String::from_utf8(ended.stdout).unwrap();
    assert!(
        shown.starts_with(&format!(
            "OTEL_EXPORTER_OTLP_ENDPOINT={url}\nOTEL_EXPORTER_OTLP_HEADERS=api-key=k\n"
        )),
        "{shown}"
    );
    let named = Exec::new().flags(["--trace-command", "--trace", &url]);
    let ended = run(named, shows).await;
    assert_eq!(String::from_utf8(ended.stdout).unwrap(), format!("OTEL_EXPORTER_OTLP_ENDPOINT={url}\n"));
    // What is meant for another program must not keep the command from running.
    let other = Exec::new().env("OTEL_EXPORTER_OTLP_ENDPOINT", "no collector");
    let ended = run(other, "exit 3").await;
    assert_eq!(ended.code, Some(3));
    assert!(ended.stderr.contains("cannot send spans"), "{}", ended.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_state_is_nothing_without_its_parent() {
    let shows = "echo \"<$TRACESTATE>\"";
    let with = |parent: Option<&str>| {
        let exec = Exec::new().env("TRACESTATE", "vendor=1");
        match parent {
            Some(parent) => exec.env("TRACEPARENT", parent),
            None => exec,
        }
    };
    let bad = format!("{}zz", &PARENT[..53]);
    for (parent, shown) in [(None, "<>\n"), (Some(bad.as_str()), "<>\n"), (Some(PARENT), "<vendor=1>\n")] {
        let ended = run(with(parent), shows).await;
        assert_eq!(String::from_utf8(ended.stdout).unwrap(), shown, "{parent:?}");
    }
}
