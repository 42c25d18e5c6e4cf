//! Whether a worker answers at an address, for who has no token for it.

use std::{net::SocketAddr, time::Duration};

use url::Url;
use uuid::Uuid;

use super::{
    Trouble,
    server::{below, client, silent, worker},
};

/// How long it may take to open.
const KNOCK_MAX: Duration = Duration::from_secs(5);

/// What everybody may ask every worker for.
const DOOR: &str = "/api/openapi.json";

/// Looks who answers at this address of the URL's host, without a word about who asks: which worker, or `None` where it is none.
pub async fn knock(url: &Url, address: SocketAddr) -> Result<Option<Uuid>, Trouble> {
    let client = client(url, address, KNOCK_MAX).map_err(Trouble::Silent)?;
    let answer = client.head(below(url, DOOR, None)).timeout(KNOCK_MAX).send().await;
    answer.map(|answer| worker(answer.headers())).map_err(|error| silent(&error))
}
