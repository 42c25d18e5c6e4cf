//! A stand-in as a server: it listens, carries out its script, and can be switched off and on again at the same port.

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{Notify, broadcast},
    time::{Instant, sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Ask, Digest, Fate, Judged, Platform, SlackWall,
    record::{Counters, Received, Records},
    script::{Allowance, Script, Step},
    wire::{Connection, NoRequest, Request},
};
use crate::model::Reply;

/// How many arrivals a subscriber may lag behind before it misses some.
const ARRIVALS_MAX: usize = 4_096;

/// How many connections may wait to be accepted.
const BACKLOG: u32 = 1_024;

/// How often the old port is asked for again after an outage. Meanwhile somebody's outgoing connection may sit on it.
const REBIND_TRIES: u32 = 50;

/// How long is waited between two such tries.
const REBIND_PAUSE: Duration = Duration::from_millis(100);

/// What the client reads where the script says garbage: a TLS alert, which is what a wrong port often says.
const GARBAGE: &[u8] = b"\x15\x03\x01\x00\x02\x02\x46 this is not HTTP\r\n\r\n";

/// What a stand-in needs beside its platform and its script.
#[derive(Clone, Debug)]
pub struct Options {
    /// The port; 0 takes any.
    pub port: u16,
    /// How many bytes of received requests are kept at most; the oldest go first.
    pub kept_bytes: usize,
    /// The only credential that is right; `None`: any that is well formed.
    pub credential: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self { port: 0, kept_bytes: 16 * 1024 * 1024, credential: None }
    }
}

/// A running stand-in. It stops when dropped.
#[derive(Debug)]
pub struct StandIn {
    shared: Arc<Shared>,
    port: u16,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[derive(Debug)]
struct Shared {
    platform: Platform,
    state: Mutex<State>,
    arrivals: broadcast::Sender<Arc<Received>>,
    changed: Notify,
    numbers: AtomicU64,
    wall: SlackWall,
}

#[derive(Debug)]
struct State {
    script: Script,
    credential: Option<String>,
    records: Records,
    /// Until when the endpoint asked to be left alone.
    quiet_until: Option<Instant>,
}

/// What is done about one request.
enum Act {
    Say(Reply),
    SayLater(Duration),
    Hang,
    Reset,
    Garbage,
}

impl StandIn {
    /// Starts one on a free port of 127.0.0.1.
    pub async fn start(platform: Platform, script: Script) -> io::Result<Self> {
        Self::start_with(platform, script, Options::default()).await
    }

    /// Starts one on this port of 127.0.0.1.
    pub async fn start_at(platform: Platform, script: Script, port: u16) -> io::Result<Self> {
        Self::start_with(platform, script, Options { port, ..Options::default() }).await
    }

    /// Starts one with these options.
    pub async fn start_with(platform: Platform, script: Script, options: Options) -> io::Result<Self> {
        let state = State {
            script,
            credential: options.credential,
            records: Records::new(options.kept_bytes),
            quiet_until: None,
        };
        let shared = Arc::new(Shared {
            platform,
            state: Mutex::new(state),
            arrivals: broadcast::Sender::new(ARRIVALS_MAX),
            changed: Notify::new(),
            numbers: AtomicU64::new(0),
            wall: SlackWall::default(),
        });
        let mut stand_in = Self { shared, port: options.port, running: None };
        stand_in.restart().await?;
        Ok(stand_in)
    }

    /// Closes the port and every connection: from now on connections are refused. What was received is kept.
    pub async fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop.cancel();
            running.tasks.close();
            running.tasks.wait().await;
        }
    }

    /// Listens at the same port again after [`Self::stop`]; does nothing when it already does.
    pub async fn restart(&mut self) -> io::Result<()> {
        if self.running.is_some() {
            return Ok(());
        }
        let mut tries = 1;
        let listener = loop {
            match listen(self.port) {
                Ok(listener) => break listener,
                Err(error) if self.port == 0 || tries == REBIND_TRIES => return Err(error),
                Err(_) => {
                    tries += 1;
                    sleep(REBIND_PAUSE).await;
                }
            }
        };
        self.port = listener.local_addr()?.port();
        let running = Running { stop: CancellationToken::new(), tasks: TaskTracker::new() };
        let (shared, stop, tasks) = (Arc::clone(&self.shared), running.stop.clone(), running.tasks.clone());
        running.tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = accept(&shared, &listener, &stop, &tasks) => {}
            }
        });
        self.running = Some(running);
        Ok(())
    }

    /// The platform that it stands in for.
    pub fn platform(&self) -> Platform {
        self.shared.platform
    }

    /// The port, the same for as long as the stand-in exists.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `http://127.0.0.1:port`, without a trailing slash.
    pub fn base_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// A URL that it takes messages at.
    pub fn url(&self) -> String {
        format!("{}{}", self.base_url(), self.shared.platform.path())
    }

    /// Follows another script from the next request on. An announced time of rest is forgotten.
    pub fn set_script(&self, script: Script) {
        let mut state = self.shared.state();
        state.script = script;
        state.quiet_until = None;
    }

    /// Takes only this credential from now on (`None`: any that is well formed), as when somebody rotates it.
    pub fn set_credential(&self, credential: Option<String>) {
        self.shared.state().credential = credential;
    }

    /// What people see in it, where it stands in for Slack.
    pub fn wall(&self) -> &SlackWall {
        &self.shared.wall
    }

    /// How often each decision was told by messages that are posted.
    pub fn received_ids(&self) -> HashMap<String, u32> {
        self.shared.state().records.ids()
    }

    /// How often one decision was told by messages that are posted.
    pub fn times_received(&self, id: &str) -> u32 {
        self.shared.state().records.times_received(id)
    }

    /// How many different decisions were told by messages that are posted.
    pub fn different_ids(&self) -> usize {
        self.shared.state().records.different_ids()
    }

    /// How often what happened.
    pub fn counters(&self) -> Counters {
        self.shared.state().records.counters
    }

    /// The newest requests, oldest first, as many as there is room for.
    pub fn kept(&self) -> Vec<Arc<Received>> {
        self.shared.state().records.kept()
    }

    /// Every request from now on, once it has been dealt with. A subscriber that lags behind misses the oldest.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Received>> {
        self.shared.arrivals.subscribe()
    }

    /// Waits until `holds`, which is asked after every request, for at most `within`. Says whether it came to hold.
    pub async fn wait_until(&self, within: Duration, holds: impl Fn(&Self) -> bool) -> bool {
        let come = async {
            loop {
                let mut changed = std::pin::pin!(self.shared.changed.notified());
                // Before asking, so that what changes in between is not missed.
                changed.as_mut().enable();
                if holds(self) {
                    return;
                }
                changed.await;
            }
        };
        timeout(within, come).await.is_ok()
    }
}

fn listen(port: u16) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    // Connections of before an outage linger in TIME_WAIT, and must not keep the port from us.
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    socket.listen(BACKLOG)
}

async fn accept(shared: &Arc<Shared>, listener: &TcpListener, stop: &CancellationToken, tasks: &TaskTracker) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let (shared, stop) = (Arc::clone(shared), stop.clone());
                tasks.spawn(async move { stop.run_until_cancelled(serve(&shared, stream)).await });
            }
            Err(error) => {
                // Too many open files, most likely: others must close some first.
                tracing::warn!(%error, "stand-in cannot accept connections");
                sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn serve(shared: &Shared, stream: TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "stand-in could not switch off Nagle's algorithm");
    }
    let mut connection = Connection::new(stream);
    loop {
        let request = match connection.request().await {
            Ok(request) => request,
            Err(NoRequest::Gone) => return,
            Err(NoRequest::Bad(status)) => {
                // Whether the client still reads it is its own affair: the connection ends here either way.
                drop(connection.reply(&Reply::new(status, "").with_header("connection", "close")).await);
                return;
            }
        };
        let reply = match shared.meet(&request, connection.head_at()) {
            Act::Say(reply) => reply,
            Act::SayLater(delay) => {
                sleep(delay).await;
                shared.take(&request, None)
            }
            Act::Hang => std::future::pending().await,
            Act::Reset => return connection.reset(),
            Act::Garbage => {
                drop(connection.raw(GARBAGE).await);
                return;
            }
        };
        if connection.reply(&reply).await.is_err() || !request.keeps_alive() {
            return;
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while holding it in a way that leaves it half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Decides what is done about a request, and records it unless that comes later.
    fn meet(&self, request: &Request, arrived: Instant) -> Act {
        let now = Instant::now();
        let (step, allowance) = {
            let mut state = self.state();
            state.records.counters.requests += 1;
            if request.method == "POST" {
                if state.quiet_until.is_some_and(|until| now < until) {
                    state.records.counters.impatient += 1;
                }
                match state.script.admit(arrived) {
                    Ok(allowance) => (state.script.next(&plain_body(request)), allowance),
                    Err(wait) => {
                        state.records.counters.violations += 1;
                        (Step::RateLimited { retry_after: wait }, None)
                    }
                }
            } else {
                (Step::Accept, None)
            }
        };
        match step {
            Step::Accept => Act::Say(self.take(request, allowance)),
            Step::Slow(delay) => Act::SayLater(delay),
            Step::RateLimited { retry_after } => {
                let reply = self.platform.too_many(retry_after.as_secs_f64());
                self.fail(request, Some(&reply), false);
                self.state().quiet_until = Some(now + retry_after);
                Act::Say(reply)
            }
            Step::Reply { reply, taken } => {
                self.fail(request, Some(&reply), taken);
                Act::Say(reply)
            }
            Step::Hang { taken } => {
                self.fail(request, None, taken);
                Act::Hang
            }
            Step::Reset { taken } => {
                self.fail(request, None, taken);
                Act::Reset
            }
            Step::Garbage { taken } => {
                self.fail(request, None, taken);
                Act::Garbage
            }
        }
    }

    /// Does as the platform would.
    fn take(&self, request: &Request, allowance: Option<Allowance>) -> Reply {
        let Judged { reply, fate, ids, digest } = self.judge(request, allowance);
        self.record(request, fate, ids, digest, Some(reply.status.as_u16()));
        reply
    }

    /// Records a request that is answered as scripted, posted all the same where `taken` says so and the platform would.
    fn fail(&self, request: &Request, reply: Option<&Reply>, taken: bool) {
        let status = reply.map(|reply| reply.status.as_u16());
        let judged = taken.then(|| self.judge(request, None)).filter(|judged| judged.fate == Fate::Taken);
        match judged {
            Some(judged) => self.record(request, Fate::Taken, judged.ids, judged.digest, status),
            None => self.record(request, Fate::Refused, Vec::new(), None, status),
        }
    }

    fn judge(&self, request: &Request, allowance: Option<Allowance>) -> Judged {
        let credential = self.state().credential.clone();
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let wall = &self.wall;
        self.platform.judge(&Ask { request, credential: credential.as_deref(), allowance, number, wall })
    }

    fn record(&self, request: &Request, fate: Fate, ids: Vec<String>, digest: Option<Digest>, status: Option<u16>) {
        let received = Arc::new(Received {
            at: Instant::now(),
            method: request.method.clone(),
            path: request.path.clone(),
            query: request.query.clone(),
            headers: request.headers.clone(),
            body: plain_body(request),
            fate,
            ids,
            digest,
            status,
        });
        self.state().records.add(Arc::clone(&received));
        self.changed.notify_waiters();
        // An error says only that nobody subscribed.
        drop(self.arrivals.send(received));
    }
}

/// The body, inflated where that is possible.
fn plain_body(request: &Request) -> Bytes {
    match super::inflated(request) {
        Some(std::borrow::Cow::Owned(plain)) => plain.into(),
        Some(std::borrow::Cow::Borrowed(_)) | None => request.body.clone(),
    }
}
