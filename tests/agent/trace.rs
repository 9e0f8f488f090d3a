//! Spans, as a collector receives them. `tests/observe/traces.rs` has whole jobs, with Jaeger.

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
async fn attempt_is_one_span_tree_in_the_given_trace() {
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
    assert_eq!((status.code, status.message.as_str()), (2, "exited"), "the reason only, without the message");
    let phases: Vec<_> = ["fetch", "run", "drain", "report"].map(find).into();
    assert!(phases.iter().all(|it| it.parent_span_id == attempt.span_id));
    // They are consecutive and cover the attempt.
    assert_eq!(phases[0].start_time_unix_nano, attempt.start_time_unix_nano);
    assert!(phases.windows(2).all(|two| two[0].end_time_unix_nano == two[1].start_time_unix_nano));
    assert_eq!(phases[3].end_time_unix_nano, attempt.end_time_unix_nano);
    let command = format!("00-{}-{}-01\n", hex(&attempt.trace_id), hex(&find("run").span_id));
    assert_eq!(String::from_utf8(ended.stdout).unwrap(), command);
}

#[tokio::test(flavor = "multi_thread")]
async fn propagators_decide_whether_the_trace_of_the_environment_is_joined() {
    for (propagators, is_joined) in [("none", false), ("baggage", false), ("tracecontext", true)] {
        let (address, mut spans) = collector().await;
        let exec = Exec::new().flags(["--trace", &format!("http://{address}")]);
        let ended = run(exec.env("TRACEPARENT", PARENT).env("OTEL_PROPAGATORS", propagators), "exit 0").await;
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        let trace = hex(&spans.try_recv().expect("spans were sent").trace_id);
        assert_eq!(trace == PARENT[3..35], is_joined, "{propagators}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unsampled_trace_sends_no_spans_and_traceparent_is_passed_without_a_collector() {
    let (address, mut spans) = collector().await;
    let unsampled = format!("{}00", &PARENT[..53]);
    let exec = Exec::new().flags(["--trace", &format!("http://{address}")]).env("TRACEPARENT", &unsampled);
    assert_eq!(run(exec, "exit 0").await.code, Some(0));
    assert!(spans.try_recv().is_err());
    let ended = run(Exec::new().env("TRACEPARENT", PARENT), "echo $TRACEPARENT").await;
    assert_eq!(ended.stdout, format!("{PARENT}\n").as_bytes());
}

/// One collector refuses connections, the other accepts them and never answers.
#[tokio::test(flavor = "multi_thread")]
async fn failing_collector_does_not_change_the_exit_code() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let hole = format!("http://{}", listener.local_addr().unwrap());
    for collector in ["http://127.0.0.1:9", &hole] {
        let ended = run(Exec::new().flags(["--trace", collector]), "exit 3").await;
        assert_eq!(ended.code, Some(3));
        assert!(ended.stderr.contains("spans are lost"), "{}", ended.stderr);
    }
}

/// The standard variables configure the agent only: the headers may hold a key, which the command must not see.
#[tokio::test(flavor = "multi_thread")]
async fn command_gets_otel_variables_only_with_trace_command() {
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
    // An endpoint that is invalid for the agent does not keep the command from running.
    let other = Exec::new().env("OTEL_EXPORTER_OTLP_ENDPOINT", "no collector");
    let ended = run(other, "exit 3").await;
    assert_eq!(ended.code, Some(3));
    assert!(ended.stderr.contains("cannot send spans"), "{}", ended.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn tracestate_without_valid_traceparent_is_removed() {
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
