//! What TLS and access tokens cost: the same calls to a server with both, and to one on loopback without, in turn. For
//! Attach these are the port for Pods, whose tokens a stand-in for the API server reviews, and the agents' socket.

use std::path::Path;

use sqlflow_proto::v1::{Request, Session, Token};
use sqlflow_tests::access::{self, Tokens};
use sqlflow_tests::agents_port::{self, TOKEN};
use sqlflow_tests::client::Client;
use sqlflow_tests::python;
use sqlflow_tests::server::Server;
use sqlflow_tests::services::free_port;
use tempfile::TempDir;
use tonic::metadata::{Ascii, MetadataValue};

use crate::agent;
use crate::arguments::Scale;
use crate::fetch::{STATEMENTS, at};
use crate::measure::{Goal, Measurement, Relation, Statistic};
use crate::world::follow;

/// Goal for a call with TLS and a token, beside one without.
const RATIO: Goal = Goal::AtMost(1.3);
/// Goal for the 99th percentile of a call with both, in milliseconds.
const SLOWEST: Goal = Goal::AtMost(10.0);

/// A server and its client.
struct Side {
    server: Server,
    client: Client,
    address: String,
    /// Signs the server's certificate; `None`: no TLS.
    ca: Option<String>,
    bearer: Option<MetadataValue<Ascii>>,
}

/// All figures.
pub async fn all(folder: &Path, scale: &Scale) -> anyhow::Result<Vec<Measurement>> {
    let dir = TempDir::new_in(folder.canonicalize()?)?;
    let mut sides = [plain(&dir.path().join("plain")).await?, secured(&dir.path().join("secured")).await?];
    let measured = ["plain", "secured"].map(|side| {
        let what = if side == "plain" { "  without TLS and token" } else { "with TLS and token" };
        let time =
            |name: &str, title: &str| Measurement::time(format!("{name}_{side}"), format!("{title}, {what}"));
        let beside = |name: &str, title: &str| match side {
            "plain" => time(name, title),
            _ => time(name, title).goal_beside(RATIO, format!("{name}_plain")).compared(
                Statistic::P99,
                Relation::Alone,
                Some(SLOWEST),
            ),
        };
        [
            beside("run", "Run"),
            beside("fetch", "Fetch of 100 results"),
            time("connect", "connection and a call"),
        ]
    });
    let [mut plain, mut secured] = measured;
    let mut fetched = Vec::new();
    for side in &mut sides {
        let token = side.run("SELECT 1;".repeat(STATEMENTS)).await?;
        follow(&mut side.client, &token, |_| {}).await?;
        fetched.push(token);
    }
    for _ in 0..scale.fetches {
        for ((side, token), figures) in sides.iter_mut().zip(&fetched).zip([&mut plain, &mut secured]) {
            let [run, fetch, connect] = figures;
            let job = run.clock(side.run("SELECT 1".to_owned())).await?;
            follow(&mut side.client, &job, |_| {}).await?;
            fetch.clock(side.fetch(token)).await?;
            connect.clock(side.connect_and_fetch(token)).await?;
        }
    }
    for side in sides {
        side.server.stop()?;
    }
    let attached = attach(dir.path(), scale).await?;
    dir.close()?;
    Ok(plain.into_iter().chain(secured).chain(attached).collect())
}

/// An agent attaches, on a new connection: until the server has identified it and answers.
async fn attach(dir: &Path, scale: &Scale) -> anyhow::Result<Vec<Measurement>> {
    let [local, pods] = ["agents", "pods"].map(|name| dir.join(name));
    let mut plain = Measurement::time("attach_plain", "connection and Attach,   through the socket");
    let mut secured =
        Measurement::time("attach_secured", "connection and Attach, with TLS and a Pod's token")
            .beside("attach_plain");
    for folder in [&local, &pods] {
        std::fs::create_dir(folder)?;
    }
    access::certificates(&pods);
    let address = format!("127.0.0.1:{}", free_port());
    let setup = agent::setup(&local, format!("sqlite://{}", local.join("none.db").display()))?;
    let servers = [setup.start()?, agents_port::setup(&pods, &address).start()?];
    for _ in 0..scale.fetches {
        let by_socket = async {
            let channel = agents_port::agents_socket(&setup.state_dir).await;
            agents_port::attach(channel, agents_port::process()).await
        };
        drop(plain.clock(by_socket).await?);
        let by_port = async {
            let channel = agents_port::connect(&pods, &address).await?;
            anyhow::Ok(agents_port::attach(channel, agents_port::pod(TOKEN)).await?)
        };
        drop(secured.clock(by_port).await?);
    }
    drop(servers);
    Ok(vec![plain, secured])
}

async fn plain(dir: &Path) -> anyhow::Result<Side> {
    std::fs::create_dir(dir)?;
    let server = agent::setup(dir, python::iris(&dir.join("data.db"))?)?.start()?;
    let (client, address) = (server.client().await?, server.address.clone());
    Ok(Side { server, client, address, ca: None, bearer: None })
}

async fn secured(dir: &Path) -> anyhow::Result<Side> {
    std::fs::create_dir(dir)?;
    access::certificates(dir);
    let tokens = Tokens::at(dir, &["ana"]);
    let file = |name: &str| dir.join(name).display().to_string();
    let setup = agent::setup(dir, python::iris(&dir.join("data.db"))?)?
        .flag(tokens.flag())
        .flag(format!("--tls-cert={}", file("server.crt")))
        .flag(format!("--tls-key={}", file("server.key")));
    let server = setup.start()?;
    let ca = std::fs::read_to_string(dir.join("ca.crt"))?;
    let address = server.address.clone();
    let client = Client::connect_with_tls(&address, "localhost", &ca).await?;
    let bearer = Some(format!("Bearer {}", tokens.of("ana")).parse()?);
    Ok(Side { server, client, address, ca: Some(ca), bearer })
}

impl Side {
    async fn run(&mut self, sql: String) -> anyhow::Result<Token> {
        let request = Request { sql, session: Some(Session::default()), ..Default::default() };
        Ok(self.client.api.run(self.with_bearer(request)).await?.into_inner())
    }

    async fn fetch(&mut self, token: &Token) -> anyhow::Result<()> {
        let request = self.with_bearer(at(token, 0));
        let page = self.client.api.fetch(request).await?.into_inner();
        anyhow::ensure!(page.results.len() >= 100, "a page holds only {} results", page.results.len());
        Ok(())
    }

    /// On a new connection.
    async fn connect_and_fetch(&mut self, token: &Token) -> anyhow::Result<()> {
        let client = match &self.ca {
            Some(ca) => Client::connect_with_tls(&self.address, "localhost", ca).await?,
            None => Client::connect(&self.address).await?,
        };
        let kept = std::mem::replace(&mut self.client, client);
        let fetched = self.fetch(token).await;
        self.client = kept;
        fetched
    }

    fn with_bearer<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        if let Some(bearer) = &self.bearer {
            request.metadata_mut().insert("authorization", bearer.clone());
        }
        request
    }
}
