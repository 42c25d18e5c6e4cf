//! One node of the broker: its address, and how a connection to it is made in bounded time.
//!
//! The client library has no limit on the handshake, and an attempt that is given up leaks a thread for as long as the peer
//! keeps the socket open. So, after one attempt ran out of time, a node must first answer a plain greeting of ours, on a socket
//! that we can close, before the library is let at it again.

use std::{sync::Arc, time::Duration};

use lapin::{
    Connection, ConnectionProperties,
    uri::{AMQPScheme, AMQPUri},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::failure::Failure;
use crate::{broker::BrokerError, model::Secret};

/// The longest that connecting may take, handshake and TLS included.
const CONNECT_LIMIT: Duration = Duration::from_secs(15);

/// The longest that a node may take to answer a greeting.
const GREETING_LIMIT: Duration = Duration::from_secs(5);

/// Seconds between heartbeats where the URL does not say: a dead peer is noticed after twice that.
const HEARTBEAT_SECONDS: u16 = 10;

/// The largest frame, in bytes, where the URL does not say. The client library keeps 64 of them per connection in memory for good:
/// with the broker's 128 KiB an idle worker held 16 MB in buffers. Larger messages come in several frames.
const FRAME_BYTES_MAX: u32 = 32 * 1024;

/// A node of the broker.
pub(super) struct Endpoint {
    uri: AMQPUri,
    /// Whether the last attempt ran out of time.
    mute: bool,
}

impl Endpoint {
    /// Reads a URL. The error does not quote it: it may hold a password.
    pub(super) fn parse(url: &Secret) -> Result<Self, BrokerError> {
        let fault = |why: &str| BrokerError {
            what: format!("`[broker] url` {why}"),
            hint: "write amqp://user:password@host:5672/%2f, or amqps:// for TLS",
            source: None,
        };
        let parsed = url::Url::parse(url.expose()).map_err(|_| fault("is not a URL"))?;
        if !matches!(parsed.scheme(), "amqp" | "amqps") {
            return Err(fault("is neither amqp:// nor amqps://"));
        }
        let mut uri: AMQPUri =
            url.expose().parse().map_err(|_| fault("has a part that is not understood after its host"))?;
        match parsed.host() {
            // The client library would silently connect to localhost instead.
            Some(url::Host::Ipv6(address)) => uri.authority.host = address.to_string(),
            Some(_) => {}
            None => return Err(fault("names no host")),
        }
        uri.query.heartbeat.get_or_insert(HEARTBEAT_SECONDS);
        uri.query.connection_timeout.get_or_insert(10_000);
        uri.query.frame_max.get_or_insert(FRAME_BYTES_MAX);
        Ok(Self { uri, mute: false })
    }

    /// Host, port and virtual host: what may be shown.
    pub(super) fn name(&self) -> String {
        format!("{}:{} (virtual host `{}`)", self.uri.authority.host, self.uri.authority.port, self.uri.vhost)
    }

    /// Connects. Only one attempt of a process may be under way at a time.
    pub(super) async fn connect(&mut self, purpose: &str) -> Result<Connection, Failure> {
        let doing = format!("could not connect to the broker at {}", self.name());
        if self.mute {
            self.greet().await.map_err(|error| Failure::of(&doing, error.into()))?;
        }
        if self.uri.scheme == AMQPScheme::AMQPS {
            crate::tls::install();
        }
        let properties =
            ConnectionProperties::default().with_connection_name(format!("interven-alerts {purpose}").into());
        match tokio::time::timeout(CONNECT_LIMIT, Connection::connect_uri(self.uri.clone(), properties)).await {
            Ok(Ok(connection)) => {
                self.mute = false;
                Ok(connection)
            }
            Ok(Err(error)) => Err(Failure::of(doing, error)),
            Err(_) => {
                self.mute = true;
                Err(Failure::timeout(doing, CONNECT_LIMIT))
            }
        }
    }

    /// Says hello as AMQP or TLS does and waits for the first byte of an answer.
    async fn greet(&self) -> std::io::Result<()> {
        let hello = match self.uri.scheme {
            AMQPScheme::AMQP => b"AMQP\0\0\x09\x01".to_vec(),
            AMQPScheme::AMQPS => self.tls_hello()?,
        };
        let exchange = async {
            let address = (self.uri.authority.host.as_str(), self.uri.authority.port);
            let mut socket = tokio::net::TcpStream::connect(address).await?;
            socket.write_all(&hello).await?;
            socket.read_u8().await.map(drop)
        };
        tokio::time::timeout(GREETING_LIMIT, exchange).await.unwrap_or_else(|_| {
            Err(std::io::Error::new(std::io::ErrorKind::TimedOut, "it accepts connections but does not answer"))
        })
    }

    /// The first bytes of a TLS handshake. It goes no further, so it needs to trust nobody.
    fn tls_hello(&self) -> std::io::Result<Vec<u8>> {
        crate::tls::install();
        let config = rustls::ClientConfig::builder()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let name =
            rustls::pki_types::ServerName::try_from(self.uri.authority.host.clone()).map_err(std::io::Error::other)?;
        let mut client = rustls::ClientConnection::new(Arc::new(config), name).map_err(std::io::Error::other)?;
        let mut hello = Vec::new();
        client.write_tls(&mut hello)?;
        Ok(hello)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_faulty_url_is_refused_without_being_quoted() {
        for bad in [
            "http://u:hunter22@h/",
            "amqp://u:hunter22@h:port/",
            "hunter22",
            "amqp:///?heartbeat=hunter22",
            "amqp://u:hunter22@h/?heartbeat=x",
        ] {
            let error = Endpoint::parse(&Secret::new(bad)).err().unwrap_or_else(|| panic!("{bad}"));
            assert!(!format!("{error} {error:?}").contains("hunter22"), "{error:?}");
        }
    }

    #[test]
    fn an_endpoint_is_named_without_its_user() {
        let endpoint = Endpoint::parse(&Secret::new("amqp://user:hunter22@[::1]:5673/%2f?heartbeat=5")).unwrap();
        assert_eq!(endpoint.name(), "::1:5673 (virtual host `/`)");
        assert_eq!(endpoint.uri.query.heartbeat, Some(5));
        assert_eq!(endpoint.uri.authority.userinfo.password, "hunter22");
    }

    #[tokio::test]
    async fn a_node_that_never_answers_is_not_handed_to_the_client_library_again() {
        // Goal: an attempt against a mute peer ends by itself and leaves no thread behind.
        // Method: a listener that accepts and says nothing; mark the endpoint as one that ran out of time before.
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("amqp://127.0.0.1:{}", listener.local_addr().unwrap().port());
        let mut endpoint = Endpoint::parse(&Secret::new(url)).unwrap();
        endpoint.mute = true;
        let threads = || {
            std::fs::read_dir("/proc/self/task")
                .unwrap()
                .filter(|task| {
                    let name = task.as_ref().unwrap().path().join("comm");
                    std::fs::read_to_string(name).is_ok_and(|name| name.starts_with("lapin"))
                })
                .count()
        };
        let before = threads();
        let failure = endpoint.connect("test").await.unwrap_err();
        assert!(failure.to_string().contains("does not answer"), "{failure}");
        assert!(threads() <= before, "the client library was started");
    }
}
