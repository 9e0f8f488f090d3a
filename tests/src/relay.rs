//! A link between agents and a server that duplicates and reorders messages.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sqlflow_proto::agent::agent_client::AgentClient;
use sqlflow_proto::agent::agent_server::{Agent, AgentServer};
use sqlflow_proto::agent::{AttachRequest, AttachResponse, attach_request::Message};
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::transport::{Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};

/// Fault of the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Each is sent twice.
    Duplicate,
    /// Every tenth is sent after the one that follows it.
    Reorder,
    /// Every tenth ends the stream, and is sent first on the next one.
    Replay,
}

/// Acts as the agents' server, and forwards everything to the real one.
#[derive(Debug, Clone)]
pub struct Relay {
    server: PathBuf,
    fault: Fault,
    count: Arc<AtomicU64>,
    done: Arc<AtomicU64>,
    kept: Arc<std::sync::Mutex<Option<AttachRequest>>>,
}

impl Relay {
    /// Listens at `address` for as long as the runtime lives.
    pub fn listen(address: &Path, server: &Path, fault: Fault) -> Self {
        let listener = UnixListener::bind(address).expect("the relay can listen");
        let relay = Self {
            server: server.to_owned(),
            fault,
            count: Arc::default(),
            done: Arc::default(),
            kept: Arc::default(),
        };
        let service = AgentServer::new(relay.clone()).max_decoding_message_size(64 << 20);
        tokio::spawn(async move {
            let sockets = UnixListenerStream::new(listener);
            Server::builder().add_service(service).serve_with_incoming(sockets).await
        });
        relay
    }

    /// Number of injected faults.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// The messages to forward for this one; `None`: the stream ends here.
    fn twist(&self, request: AttachRequest, held: &mut Option<AttachRequest>) -> Option<Vec<AttachRequest>> {
        if !matches!(request.message, Some(Message::Records(_))) {
            // The last batch is not overtaken by another, and is sent now.
            return Some(std::iter::once(request).chain(held.take()).collect());
        }
        let turn = self.count.fetch_add(1, Ordering::Relaxed) % 10 == 9;
        let done = || self.done.fetch_add(1, Ordering::Relaxed);
        match self.fault {
            Fault::Duplicate => {
                done();
                Some(vec![request.clone(), request])
            }
            Fault::Reorder => match held.take() {
                Some(earlier) => {
                    done();
                    Some(vec![request, earlier])
                }
                None if turn => {
                    *held = Some(request);
                    Some(Vec::new())
                }
                None => Some(vec![request]),
            },
            Fault::Replay if turn => {
                done();
                *self.kept.lock().expect("no thread panics while it holds the lock") = Some(request);
                None
            }
            Fault::Replay => Some(vec![request]),
        }
    }
}

#[tonic::async_trait]
impl Agent for Relay {
    type AttachStream = Pin<Box<dyn tokio_stream::Stream<Item = Result<AttachResponse, Status>> + Send>>;

    async fn attach(
        &self,
        request: Request<Streaming<AttachRequest>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let endpoint = Endpoint::from_shared(format!("unix://{}", self.server.display()))
            .map_err(|error| Status::internal(error.to_string()))?;
        let channel = endpoint.connect().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let (sender, outbound) = mpsc::channel(16);
        let (relay, mut inbound) = (self.clone(), request.into_inner());
        tokio::spawn(async move {
            let mut held = None;
            while let Ok(Some(request)) = inbound.message().await {
                let is_hello = matches!(request.message, Some(Message::Hello(_)));
                let Some(requests) = relay.twist(request, &mut held) else { return };
                for request in requests {
                    if sender.send(request).await.is_err() {
                        return;
                    }
                }
                let kept = relay.kept.lock().expect("no thread panics while it holds the lock").take();
                if let (true, Some(kept)) = (is_hello, kept)
                    && sender.send(kept).await.is_err()
                {
                    return;
                }
            }
        });
        let responses = AgentClient::new(channel)
            .max_decoding_message_size(64 << 20)
            .attach(ReceiverStream::new(outbound))
            .await?;
        Ok(Response::new(Box::pin(responses.into_inner())))
    }
}
