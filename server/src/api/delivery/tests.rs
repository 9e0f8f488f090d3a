//! The rules, and connections of a client that writes HTTP/2 by hand.

use axum::Router;
use axum::extract::{Extension, State};
use axum::response::Response;
use axum::routing::get;
use futures::StreamExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::connection::Receipt;
use super::frames::tests::frame;
use super::frames::{Frame, FrameKind, FrameWatch, PREFACE};
use super::*;

const IN_TIME: Duration = Duration::from_millis(99);
const LATE: Duration = Duration::from_millis(100);
const LIMIT: Option<Duration> = Some(Duration::from_millis(200));

#[test]
fn delivery_is_judged_by_sign_reset_and_time_limit() {
    let (yes, no) = (true, false);
    let table = [
        // handed over, reset, time limit, sign, after: expected result
        (yes, no, None, Sign::NextFetch, LATE, Verdict::Delivered),
        (yes, no, None, Sign::GoodEnd, LATE, Verdict::Delivered),
        (yes, no, None, Sign::None, LATE, Verdict::Open),
        (yes, no, None, Sign::BadEnd, IN_TIME, Verdict::Unproved),
        (no, no, None, Sign::NextFetch, IN_TIME, Verdict::Unproved),
        (no, no, None, Sign::GoodEnd, IN_TIME, Verdict::Unproved),
        (yes, yes, None, Sign::NextFetch, IN_TIME, Verdict::Unproved),
        (yes, yes, None, Sign::GoodEnd, IN_TIME, Verdict::Unproved),
        (yes, yes, None, Sign::None, IN_TIME, Verdict::Unproved),
        (yes, no, LIMIT, Sign::NextFetch, IN_TIME, Verdict::Delivered),
        (yes, no, LIMIT, Sign::NextFetch, LATE, Verdict::Unproved),
        (yes, no, LIMIT, Sign::GoodEnd, IN_TIME, Verdict::Delivered),
        (yes, no, LIMIT, Sign::GoodEnd, LATE, Verdict::Unproved),
        (yes, no, LIMIT, Sign::None, IN_TIME, Verdict::Open),
    ];
    for (written, was_reset, time_limit, sign, after, verdict) in table {
        let facts = Facts { written, was_reset, time_limit, sign, after };
        assert_eq!(judge(&facts), verdict, "{facts:?}");
    }
}

#[test]
fn grpc_timeouts_are_parsed() {
    assert_eq!(parse_timeout("200m"), LIMIT);
    assert_eq!(parse_timeout("200000u"), LIMIT);
    assert_eq!(parse_timeout("2S"), Some(Duration::from_secs(2)));
    assert_eq!(parse_timeout("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
    for wrong in ["", "S", "2", "2x", "-2S", "123456789n", "2é"] {
        assert_eq!(parse_timeout(wrong), None, "{wrong}");
    }
    assert_eq!(Call::new(Arc::default(), Some("soon")).time_limit, Some(Duration::ZERO));
}

/// A Fetch on this connection whose response is the page up to `to`. Returns the cursor it moved to.
fn fetch(deliveries: &Deliveries, job: &JobId, on: &Arc<Connection>, cursor: u64) -> Option<u64> {
    let reading = deliveries.begin(job, Call::new(Arc::clone(on), None));
    let moved = reading.delivered(cursor, reading.has_proof(cursor));
    let from = moved.unwrap_or(cursor);
    if let Some(sent) = reading.note(from, from + 7) {
        sent.set();
    }
    moved
}

#[test]
fn each_connection_proves_its_own_pages() {
    let (deliveries, job) = (Deliveries::default(), JobId::generate());
    let (first, second) = (Arc::default(), Arc::default());
    assert_eq!(fetch(&deliveries, &job, &first, 0), None);
    assert_eq!(fetch(&deliveries, &job, &second, 0), None, "another connection proves nothing");
    assert_eq!(fetch(&deliveries, &job, &first, 0), Some(7));
    assert_eq!(fetch(&deliveries, &job, &second, 7), None, "its page was one from before");
    assert_eq!(fetch(&deliveries, &job, &second, 7), Some(14));
}

#[test]
fn only_a_clean_end_without_reset_proves_delivery() {
    let job = JobId::generate();
    let other = Arc::default();
    let after = |change: &dyn Fn(&Connection)| {
        let (deliveries, connection) = (Deliveries::default(), Arc::default());
        fetch(&deliveries, &job, &connection, 0);
        change(&connection);
        fetch(&deliveries, &job, &other, 0)
    };
    assert_eq!(after(&|connection| connection.end(End::Bad)), None);
    assert_eq!(after(&|connection| connection.end(End::Good)), None, "the page may be on its way");
    assert_eq!(
        after(&|connection| {
            connection.received(Receipt(1));
            connection.end(End::Good);
        }),
        Some(7)
    );
    assert_eq!(
        after(&|connection| {
            connection.note_reset();
            connection.received(Receipt(1));
            connection.end(End::Good);
        }),
        None
    );
}

#[test]
fn concurrent_calls_prove_nothing() {
    let (deliveries, job, connection) = (Deliveries::default(), JobId::generate(), Arc::default());
    let call = || Call::new(Arc::clone(&connection), None);
    let (first, second) = (deliveries.begin(&job, call()), deliveries.begin(&job, call()));
    assert!(first.note(0, 7).is_none() && second.note(0, 7).is_none());
    drop((first, second));
    assert_eq!(fetch(&deliveries, &job, &connection, 0), None);
    assert_eq!(fetch(&deliveries, &job, &connection, 0), Some(7), "one at a time");
}

#[test]
fn tracked_jobs_are_bounded() {
    let deliveries = Deliveries::default();
    for _ in 0..MAX_JOBS + 10 {
        fetch(&deliveries, &JobId::generate(), &Arc::default(), 0);
    }
    assert!(deliveries.lock().of.len() <= MAX_JOBS);
    let job = JobId::generate();
    for _ in 0..20 {
        fetch(&deliveries, &job, &Arc::default(), 0);
    }
    assert_eq!(deliveries.lock().of[&job].pages.len(), MAX_PAGES_PER_JOB);
}

#[test]
fn jobs_read_to_the_end_are_evicted() {
    let deliveries = Deliveries::default();
    let goes_on = JobId::generate();
    fetch(&deliveries, &goes_on, &Arc::default(), 0);
    for _ in 0..10 * SPARE_JOBS {
        let job = JobId::generate();
        fetch(&deliveries, &job, &Arc::default(), 0);
        deliveries.end(&job, false);
    }
    let readers = deliveries.lock();
    assert!(readers.of.len() <= 2 * SPARE_JOBS && readers.of.contains_key(&goes_on));
}

/// A server of one job, whose pages are all from 0 to 7.
#[derive(Clone)]
struct World {
    deliveries: Arc<Deliveries>,
    job: JobId,
    address: std::net::SocketAddr,
}

async fn world() -> World {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let world = World { deliveries: Arc::default(), job: JobId::generate(), address };
    let connections = crate::connections::incoming(Arc::new(listener), "clients");
    let routes = Router::new().route("/", get(page)).with_state(world.clone());
    let serving =
        tonic::transport::Server::builder()
            .layer(tower::util::MapResponseLayer::new(watched))
            .add_routes(tonic::service::Routes::from(routes))
            .serve_with_incoming(connections.map(|(it, _)| {
                Ok::<_, std::io::Error>(TrackedStream::new(it, crate::access::Peer::default()))
            }));
    tokio::spawn(serving);
    world
}

/// Larger than one write of the server.
async fn page(State(world): State<World>, Extension(connection): Extension<Arc<Connection>>) -> Response {
    let reading = world.deliveries.begin(&world.job, Call::new(connection, None));
    let sent = reading.note(0, 7).unwrap();
    let mut response = Response::new(axum::body::Body::from(vec![b'x'; 50_000]));
    response.extensions_mut().insert(sent);
    response
}

impl World {
    /// Where the cursor moved, once the connection of the previous page has ended.
    async fn delivered(&self) -> Option<u64> {
        let has_ended = || {
            let readers = self.deliveries.lock();
            let mut pages = readers.of[&self.job].pages.iter();
            pages.all(|page| page.call.connection.seen().end.is_some())
        };
        while !has_ended() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let reading = self.deliveries.begin(&self.job, Call::new(Arc::default(), None));
        reading.delivered(0, reading.has_proof(0))
    }

    /// A client that has requested a page, which is written.
    async fn client(&self) -> TcpStream {
        let mut client = TcpStream::connect(self.address).await.unwrap();
        // GET, http, /
        let headers = frame(1, 5, 1, &[0x82, 0x86, 0x84]);
        client.write_all(&[PREFACE, &frame(4, 0, 0, &[]), &headers].concat()).await.unwrap();
        let is_written = || {
            let readers = self.deliveries.lock();
            readers
                .of
                .get(&self.job)
                .is_some_and(|it| it.pages.iter().any(|page| page.sent.receipt().is_some()))
        };
        while !is_written() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        client
    }
}

fn goaway() -> Vec<u8> {
    frame(7, 0, 0, &[0; 8])
}

/// Reads up to the end of the page and the PING after it; returns the PING's payload.
async fn read_page(client: &mut TcpStream) -> [u8; 8] {
    let (mut watch, mut has_ended) = (FrameWatch::of_server(), false);
    loop {
        let byte = [client.read_u8().await.unwrap()];
        match watch.next(&mut &byte[..]) {
            Some(frame) if frame.ends_stream() => has_ended = true,
            Some(Frame { kind: FrameKind::Ping(payload), .. }) if has_ended => return payload,
            _ => {}
        }
    }
}

/// grpc-go does this if a channel is closed during a call: it does not reset the stream.
#[tokio::test]
async fn page_is_repeated_if_the_client_closes_before_receipt() {
    let world = world().await;
    let mut client = world.client().await;
    client.write_all(&goaway()).await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(world.delivered().await, None);
}

#[tokio::test]
async fn page_is_delivered_if_the_client_closes_after_receipt() {
    let world = world().await;
    let mut client = world.client().await;
    let payload = read_page(&mut client).await;
    client.write_all(&[frame(6, 1, 0, &payload), goaway()].concat()).await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(world.delivered().await, Some(7));
}

/// The client discards what it reads.
#[tokio::test]
async fn receipt_after_goaway_proves_nothing() {
    let world = world().await;
    let mut client = world.client().await;
    client.write_all(&goaway()).await.unwrap();
    let payload = read_page(&mut client).await;
    client.write_all(&frame(6, 1, 0, &payload)).await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(world.delivered().await, None);
}
