//! A wire that can be broken: a TCP relay between two programs that know nothing of it.
//!
//! What real networks do to a connection that has done nothing wrong: end it with a reset, end one direction of it, swallow
//! everything for a while, or be slow. What is swallowed arrives when the wire is mended, as TCP sees to.

use std::{net::Ipv4Addr, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// What a wire does with what is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Flow {
    /// It carries it.
    #[default]
    Open,
    /// It carries it, so much later.
    Slow(Duration),
    /// It carries nothing, and nobody is told: new connections are accepted as a firewall's black hole would.
    Silent,
}

/// One of the two ends of a wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// Who connects.
    Client,
    /// Who listens.
    Server,
}

/// The state of all connections of a relay.
#[derive(Clone, Copy, Debug, Default)]
struct Wire {
    flow: Flow,
    /// How often all connections were reset.
    cuts: u64,
    /// How often the direction towards the client, and the one towards the server, was ended.
    ends: [u64; 2],
}

/// A relay to one port of this machine. It ends, with its connections, when dropped.
#[derive(Debug)]
pub(crate) struct Relay {
    port: u16,
    wire: watch::Sender<Wire>,
    stop: CancellationToken,
}

impl Relay {
    /// Starts a relay to `target`.
    pub(crate) async fn to(target: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (wire, stop) = (watch::Sender::new(Wire::default()), CancellationToken::new());
        let (watched, stopped, tasks) = (wire.subscribe(), stop.clone(), TaskTracker::new());
        let connections = tasks.clone();
        tasks.spawn(async move {
            let accept = async {
                loop {
                    // Too many open files, most likely: others must close some first.
                    let Ok((near, _)) = listener.accept().await else {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        continue;
                    };
                    let (watched, stopped) = (watched.clone(), stopped.clone());
                    connections.spawn(async move { stopped.run_until_cancelled(connect(near, target, watched)).await });
                }
            };
            stopped.run_until_cancelled(accept).await;
        });
        Self { port, wire, stop }
    }

    /// Where it listens.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// From now on, and for what is under way, the wire is so.
    pub(crate) fn set(&self, flow: Flow) {
        self.wire.send_modify(|wire| wire.flow = flow);
    }

    /// Resets every connection, for both ends.
    pub(crate) fn cut(&self) {
        self.wire.send_modify(|wire| wire.cuts += 1);
    }

    /// Ends one direction of every connection: `side` reads an end, and may go on sending.
    pub(crate) fn end(&self, side: Side) {
        self.wire.send_modify(|wire| wire.ends[side as usize] += 1);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn connect(mut near: TcpStream, target: u16, mut wire: watch::Receiver<Wire>) {
    // An error says that the relay was dropped.
    let Ok(now) = wire.wait_for(|wire| wire.flow != Flow::Silent).await.map(|wire| *wire) else { return };
    let cut = match TcpStream::connect((Ipv4Addr::LOCALHOST, target)).await {
        // Where nobody listens on a port of the range for clients, a connection can meet itself.
        Ok(far) if far.local_addr().is_ok_and(|near| near.port() == target) => far.set_zero_linger().is_ok(),
        Ok(mut far) => {
            let _slow = (near.set_nodelay(true), far.set_nodelay(true));
            let cut = {
                let ((near_in, near_out), (far_in, far_out)) = (near.split(), far.split());
                let mut cuts = wire.clone();
                tokio::select! {
                    cut = async { cuts.wait_for(|wire| wire.cuts != now.cuts).await.is_ok() } => cut,
                    both = async { tokio::try_join!(
                        carry(near_in, far_out, Side::Server, now, wire.clone()),
                        carry(far_in, near_out, Side::Client, now, wire.clone()),
                    ) } => both.is_err(),
                }
            };
            if cut {
                let _reset = far.set_zero_linger();
            }
            cut
        }
        Err(_) => true,
    };
    if cut {
        let _reset = near.set_zero_linger();
    }
}

/// Carries one direction until it ends.
async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    side: Side,
    before: Wire,
    mut wire: watch::Receiver<Wire>,
) -> std::io::Result<()> {
    let gone = || std::io::Error::other("the relay was dropped");
    let mut buffer = vec![0; 16 * 1024];
    let (mut ends, count) = (wire.clone(), before.ends[side as usize]);
    loop {
        let read = tokio::select! {
            read = from.read(&mut buffer) => read?,
            ended = async { ends.wait_for(|wire| wire.ends[side as usize] != count).await.is_ok() } => {
                if !ended {
                    return Err(gone());
                }
                to.shutdown().await?;
                // What is sent all the same goes nowhere, and nobody is held up by it.
                while from.read(&mut buffer).await? > 0 {}
                return Ok(());
            }
        };
        let flow = wire.wait_for(|wire| wire.flow != Flow::Silent).await.map_err(|_| gone())?.flow;
        if let Flow::Slow(delay) = flow {
            tokio::time::sleep(delay).await;
        }
        if read == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..read]).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::timeout;

    const LIMIT: Duration = Duration::from_secs(10);

    /// Both ends of a connection through a relay.
    async fn both_ends() -> (Relay, TcpStream, TcpStream) {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let relay = Relay::to(server.local_addr().unwrap().port()).await;
        let client = TcpStream::connect((Ipv4Addr::LOCALHOST, relay.port())).await.unwrap();
        let (server, _) = timeout(LIMIT, server.accept()).await.unwrap().unwrap();
        (relay, client, server)
    }

    async fn arrives(from: &mut TcpStream, to: &mut TcpStream, text: &[u8]) {
        from.write_all(text).await.unwrap();
        let mut read = vec![0; text.len()];
        timeout(LIMIT, to.read_exact(&mut read)).await.unwrap().unwrap();
        assert_eq!(read, text);
    }

    #[tokio::test]
    async fn it_carries_both_ways_and_a_cut_is_a_reset_at_both_ends() {
        let (relay, mut client, mut server) = both_ends().await;
        arrives(&mut client, &mut server, b"ping").await;
        arrives(&mut server, &mut client, b"pong").await;
        relay.cut();
        for end in [&mut client, &mut server] {
            let error = timeout(LIMIT, end.read(&mut [0; 1])).await.unwrap().unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        }
    }

    #[tokio::test]
    async fn what_a_silent_wire_swallows_arrives_when_it_is_mended() {
        let (relay, mut client, mut server) = both_ends().await;
        relay.set(Flow::Silent);
        client.write_all(b"ping").await.unwrap();
        let silence = timeout(Duration::from_millis(100), server.read(&mut [0; 4])).await;
        assert!(silence.is_err(), "{silence:?}");
        relay.set(Flow::Open);
        arrives(&mut client, &mut server, b"").await;
        let mut read = [0; 4];
        timeout(LIMIT, server.read_exact(&mut read)).await.unwrap().unwrap();
        assert_eq!(&read, b"ping");
    }

    #[tokio::test]
    async fn one_direction_ends_while_the_other_goes_on() {
        let (relay, mut client, mut server) = both_ends().await;
        relay.end(Side::Client);
        assert_eq!(timeout(LIMIT, client.read(&mut [0; 1])).await.unwrap().unwrap(), 0);
        arrives(&mut client, &mut server, b"still here").await;
    }
}
