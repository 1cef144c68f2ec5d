//! Which connections a listener keeps: a limit for each peer, and one for all of them.
//!
//! A listener that stops accepting when it is full can be filled by anybody, and then answers no probe. So a
//! new connection always gets in, and the one that has waited longest makes room. A connection waits until
//! the head of its first request is there, a TLS handshake included, and again after each answer. It has a
//! moment to itself before it has to make room: in a burst of others the head of a probe is on its way still.

use super::problem::{self, ProblemReason};
use crate::telemetry::connections::{ConnectionEnd, Connections, Listener};
use actix_web::Error;
use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::{ConnectionType, header};
use actix_web::middleware::Next;
use actix_web::web::Bytes;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// How long a connection may take until the head of its first request is there. Longer than a handshake and a
/// head may take by themselves, so that those who are late are told.
const FIRST: Duration = Duration::from_secs(9);
/// How long it may wait after an answer.
const IDLE: Duration = Duration::from_secs(20);
/// How long an answer may make no progress: its reader does not read. A stream of events shows a sign of life
/// sooner.
const STUCK: Duration = Duration::from_secs(60);
/// How long a connection may wait before it has to make room.
const MOMENT: Duration = Duration::from_millis(100);
/// How long the reader of a last answer has for it.
const LAST: Duration = Duration::from_secs(1);

/// How many connections a listener keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Of one peer: an IPv4 address, or the first 64 bits of an IPv6 one, which is what one host may choose
    /// from.
    pub(crate) per_peer: usize,
    /// Of all.
    pub(crate) all: usize,
    /// Of all, those that have not had their moment yet included.
    pub(crate) most: usize,
}

/// What a connection is at, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// No request has come yet.
    First,
    /// The last answer is out.
    Idle,
    /// A request is answered; the time is that of the last progress.
    Answering,
    /// The last answer is on its way.
    Last,
}

impl Stage {
    /// How long it may last.
    fn patience(self) -> Duration {
        match self {
            Self::First => FIRST,
            Self::Idle => IDLE,
            Self::Answering => STUCK,
            Self::Last => LAST,
        }
    }
}

#[derive(Debug)]
struct Entry {
    peer: IpAddr,
    stage: Stage,
    since: Instant,
    /// Wakes who waits for its end.
    changed: Arc<Notify>,
}

/// The connections of a listener, by number.
#[derive(Debug)]
struct Table {
    limits: Limits,
    held: BTreeMap<u64, Entry>,
    next: u64,
}

impl Table {
    fn new(limits: Limits) -> Self {
        Self { limits, held: BTreeMap::new(), next: 0 }
    }

    /// Takes a connection in, and tells how many made room for it.
    fn enter(&mut self, peer: IpAddr, now: Instant) -> (u64, Arc<Notify>, usize) {
        let (peer, before) = (peer_of(peer), self.held.len());
        let had_its_moment = |entry: &Entry| entry.since + MOMENT <= now;
        let of_peer = self.held.values().filter(|entry| entry.peer == peer).count();
        self.make_room(of_peer, self.limits.per_peer, |entry| entry.peer == peer && had_its_moment(entry));
        self.make_room(self.held.len(), self.limits.all, had_its_moment);
        self.make_room(self.held.len(), self.limits.most, |_| true);
        let left = before - self.held.len();
        let (number, changed) = (self.next, Arc::new(Notify::new()));
        self.next += 1;
        let entry = Entry { peer, stage: Stage::First, since: now, changed: changed.clone() };
        self.held.insert(number, entry);
        (number, changed, left)
    }

    /// Ends so many of those that may go that one more has its place: first the one that has waited longest,
    /// and when none waits the one without progress for longest.
    fn make_room(&mut self, count: usize, limit: usize, may_go: impl Fn(&Entry) -> bool) {
        for _ in limit..=count {
            let of_those = self.held.iter().filter(|(_, entry)| may_go(entry));
            let first = of_those
                .min_by_key(|(number, entry)| (entry.stage == Stage::Answering, entry.since, **number));
            let Some(number) = first.map(|(number, _)| *number) else { return };
            if let Some(entry) = self.held.remove(&number) {
                entry.changed.notify_one();
            }
        }
    }

    /// When the connection is to end as it is now; `None` if it has lost its place.
    fn deadline(&self, number: u64) -> Option<Instant> {
        self.held.get(&number).map(|entry| entry.since + entry.stage.patience())
    }

    fn set(&mut self, number: u64, stage: Stage, now: Instant) {
        let Some(entry) = self.held.get_mut(&number) else { return };
        // After its last answer nothing more is done for it.
        if entry.stage == Stage::Last {
            return;
        }
        let earlier = stage.patience() < entry.stage.patience();
        (entry.stage, entry.since) = (stage, now);
        if earlier {
            entry.changed.notify_one();
        }
    }
}

/// What counts as one peer.
fn peer_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
        address @ IpAddr::V4(_) => address,
    }
}

/// The door of a listener.
#[derive(Debug)]
pub(super) struct ConnectionLimiter {
    table: Mutex<Table>,
    listener: Listener,
    counted: Connections,
}

impl ConnectionLimiter {
    pub(super) fn new(listener: Listener, limits: Limits, counted: Connections) -> Arc<Self> {
        Arc::new(Self { table: Mutex::new(Table::new(limits)), listener, counted })
    }

    /// Takes a connection in.
    pub(super) fn enter(self: &Arc<Self>, peer: IpAddr) -> Arc<Connection> {
        let (number, changed, left) = self.table().enter(peer, Instant::now());
        for _ in 0..left {
            self.counted.ended(self.listener, ConnectionEnd::MadeRoom);
        }
        Arc::new(Connection { gate: self.clone(), number, changed })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

tokio::task_local! {
    /// The connection whose requests are answered here.
    static CURRENT: Arc<Connection>;
}

/// A place at a listener; free again when it is dropped.
#[derive(Debug)]
pub(super) struct Connection {
    gate: Arc<ConnectionLimiter>,
    number: u64,
    changed: Arc<Notify>,
}

impl Connection {
    /// Serves the connection until it ends by itself, or its time is over, or its place is taken.
    pub(super) async fn hold(self: Arc<Self>, serving: impl Future) {
        let held = self.clone();
        CURRENT
            .scope(self, async move {
                tokio::select! {
                    biased;
                    () = held.over() => {}
                    _ = serving => {}
                }
            })
            .await;
    }

    /// Waits until it has to end.
    async fn over(&self) {
        loop {
            let deadline = self.gate.table().deadline(self.number);
            let Some(deadline) = deadline else { return };
            if deadline <= Instant::now() {
                if !self.is_at_its_last() {
                    self.gate.counted.ended(self.gate.listener, ConnectionEnd::TooSlow);
                }
                return;
            }
            tokio::select! {
                () = self.changed.notified() => {}
                () = sleep_until(deadline) => {}
            }
        }
    }

    fn set(&self, stage: Stage) {
        self.gate.table().set(self.number, stage, Instant::now());
    }

    /// Counts why it ends, and gives it the time of its last answer.
    pub(super) fn refuse(&self, end: ConnectionEnd) {
        self.gate.counted.ended(self.gate.listener, end);
        self.set(Stage::Last);
    }

    fn is_at_its_last(&self) -> bool {
        self.gate.table().held.get(&self.number).is_none_or(|entry| entry.stage == Stage::Last)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.gate.table().held.remove(&self.number);
    }
}

/// Marks the connection as answering while a request is answered, and refuses what may hide a second request.
///
/// A body in chunks is refused (411) before a byte of it is read, and nothing more is answered on that
/// connection: the server's parser takes some broken endings of chunks for good, and so could be told another
/// request than a proxy in front of it sees (`known-holes.yaml`).
///
/// # Errors
/// Those of the handler.
pub(super) async fn guard(
    request: ServiceRequest,
    next: Next<BoxBody>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let connection = CURRENT.try_with(Arc::clone).ok();
    if connection.as_ref().is_some_and(|connection| connection.is_at_its_last()) {
        // Whatever this is, it came behind a refused body. The connection's end ends it.
        return std::future::pending().await;
    }
    if request.headers().contains_key(header::TRANSFER_ENCODING) {
        let detail = "a body needs a Content-Length; chunks (Transfer-Encoding) are refused".to_owned();
        let mut answer = problem::answer(ProblemReason::LengthRequired, request.request(), detail);
        answer.head_mut().set_connection_type(ConnectionType::Close);
        if let Some(connection) = connection {
            connection.refuse(ConnectionEnd::Refused);
        }
        return Ok(request.into_response(answer));
    }
    let answering = connection.map(Answering::begin);
    let answer = next.call(request).await?;
    Ok(match answering {
        Some(answering) => answer.map_body(|_, body| BoxBody::new(Answer { body, answering })),
        None => answer,
    })
}

/// A request that is answered.
struct Answering(Arc<Connection>);

impl Answering {
    fn begin(connection: Arc<Connection>) -> Self {
        connection.set(Stage::Answering);
        Self(connection)
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.set(Stage::Idle);
    }
}

/// A body that tells how it gets on.
struct Answer {
    body: BoxBody,
    answering: Answering,
}

impl MessageBody for Answer {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        let piece = ready!(Pin::new(&mut self.body).poll_next(context));
        self.answering.0.set(Stage::Answering);
        Poll::Ready(piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(per_peer: usize, all: usize) -> Table {
        Table::new(Limits { per_peer, all, most: 20 })
    }

    fn v4(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[tokio::test(start_paused = true)]
    async fn the_one_that_has_waited_longest_makes_room_and_the_new_one_always_gets_in() {
        let mut table = table(9, 3);
        let mut numbers = Vec::new();
        for peer in 1..=3 {
            numbers.push(table.enter(v4(peer), Instant::now()).0);
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        // The first one is answered now, so the second one waits for longest.
        table.set(numbers[0], Stage::Answering, Instant::now());
        let (fourth, _, left) = table.enter(v4(4), Instant::now());
        assert_eq!((left, table.deadline(numbers[1])), (1, None));
        // When all are answering, the one without progress for longest goes.
        tokio::time::advance(Duration::from_secs(1)).await;
        for number in [numbers[2], fourth] {
            table.set(number, Stage::Answering, Instant::now());
        }
        tokio::time::advance(Duration::from_secs(1)).await;
        table.set(numbers[0], Stage::Answering, Instant::now());
        let (_, _, left) = table.enter(v4(5), Instant::now());
        assert_eq!((left, table.deadline(numbers[2]), table.held.len()), (1, None, 3));
    }

    #[tokio::test(start_paused = true)]
    async fn each_has_a_moment_before_it_makes_room_unless_there_are_far_too_many() {
        let mut table = table(2, 4);
        let (first, ..) = table.enter(v4(1), Instant::now());
        for number in 1..20 {
            assert_eq!(table.enter(v4(number % 3), Instant::now()).2, 0);
        }
        assert!(table.deadline(first).is_some());
        assert_eq!(table.enter(v4(1), Instant::now()).2, 1);
        assert_eq!((table.deadline(first), table.held.len()), (None, 20));
        // Once their moment is over, all that are too many go.
        tokio::time::advance(MOMENT).await;
        let (last, ..) = table.enter(v4(9), Instant::now());
        assert_eq!(table.held.len(), 4);
        assert!(table.deadline(last).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_with_many_connections_makes_room_for_itself_and_takes_nobody_elses_place() {
        let mut table = table(2, 9);
        let (other, ..) = table.enter(v4(1), Instant::now());
        tokio::time::advance(Duration::from_secs(1)).await;
        let (first, ..) = table.enter(v4(2), Instant::now());
        for _ in 0..100 {
            tokio::time::advance(MOMENT).await;
            table.enter(v4(2), Instant::now());
        }
        assert_eq!((table.held.len(), table.deadline(first)), (3, None));
        assert!(table.deadline(other).is_some());
        // One host may have 2^64 addresses of IPv6; an IPv4 address in IPv6's clothes is itself.
        let v6 = |host: u16| IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, host]);
        for host in 0..100 {
            tokio::time::advance(MOMENT).await;
            table.enter(v6(host), Instant::now());
        }
        assert_eq!(table.held.len(), 5);
        tokio::time::advance(MOMENT).await;
        table.enter(IpAddr::from([0, 0, 0, 0, 0, 0xffff, 0x0a00, 0x0002]), Instant::now());
        assert_eq!(table.held.len(), 5);
        table.enter(IpAddr::from([0x2001, 0xdb8, 0, 2, 0, 0, 0, 1]), Instant::now());
        assert_eq!(table.held.len(), 6);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_ends_when_its_time_is_over_or_its_place_is_taken() {
        let counted = Connections::default();
        let gate =
            ConnectionLimiter::new(Listener::Probes, Limits { per_peer: 1, all: 9, most: 20 }, counted);
        let hold = |connection: &Arc<Connection>| {
            tokio::spawn(connection.clone().hold(std::future::pending::<()>()))
        };
        let began = Instant::now();
        let silent = gate.enter(v4(1));
        hold(&silent).await.unwrap();
        assert_eq!(began.elapsed(), FIRST);

        let asks = gate.enter(v4(2));
        let held = hold(&asks);
        let began = Instant::now();
        asks.set(Stage::Answering);
        tokio::time::sleep(STUCK - Duration::from_secs(1)).await;
        asks.set(Stage::Answering);
        tokio::time::sleep(STUCK - Duration::from_secs(1)).await;
        asks.set(Stage::Idle);
        held.await.unwrap();
        assert_eq!(began.elapsed(), 2 * (STUCK - Duration::from_secs(1)) + IDLE);

        let (first, began) = (gate.enter(v4(3)), Instant::now());
        let held = hold(&first);
        tokio::time::sleep(MOMENT).await;
        drop(gate.enter(v4(3)));
        held.await.unwrap();
        assert_eq!(began.elapsed(), MOMENT);
        drop((silent, asks, first));
        assert_eq!(gate.table().held.len(), 0, "every place is free again");
    }
}
