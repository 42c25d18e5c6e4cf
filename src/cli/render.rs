//! `render`: the exact body that a channel would get.

use std::{collections::BTreeMap, io::Read as _, path::PathBuf, sync::Arc};

use serde::Serialize;

use super::{Failure, Global, Shell, config_file, event};
use crate::{
    channels::{Occasion, Parcel},
    model::{Delivery, Scrubber},
    settings::printable,
};

/// The most that is unpacked of a compressed body: far above what any platform takes.
const UNPACKED_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Flags.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  The body as it would be posted:
    interven-alerts render decision.json --channel soc-slack
  The plain-text form that is tried once when an endpoint refuses the rich one:
    interven-alerts render - --channel soc-slack --plain < decision.json
  Endpoint, headers and body:
    interven-alerts render decision.json --channel siem --json")]
pub struct Args {
    /// A file with one decision as JSON, or - for standard input
    #[arg(value_name = "EVENT.json|-")]
    event: PathBuf,
    /// The id of the channel
    #[arg(long, value_name = "ID")]
    channel: String,
    /// The plain-text form
    #[arg(long)]
    plain: bool,
    /// Print endpoint, headers and body as JSON
    #[arg(long)]
    json: bool,
}

/// A parcel that may be shown.
#[derive(Debug, Serialize)]
struct Shown<'a> {
    channel: &'a str,
    kind: &'a str,
    endpoint: String,
    headers: BTreeMap<String, String>,
    /// JSON where the body is, else text.
    body: serde_json::Value,
}

/// Runs the command.
pub fn run(args: &Args, global: &Global, shell: &mut Shell<'_>) -> Result<(), Failure> {
    let plan = config_file::load(global, shell)?;
    let channel = config_file::channel(&plan, &args.channel)?;
    let decision = event::read(&args.event, shell)?;
    if let Err(mismatch) = channel.filter.check(&decision) {
        let text =
            format!("{} would not get this decision: see `interven-alerts explain` ({})", channel.id, mismatch.filter);
        shell.say("note", &printable(&text));
    }
    let now = shell.clock.now();
    let delivery = Delivery { plain: args.plain, ..Delivery::new(Arc::new(decision), channel.id.clone(), now) };
    let parcel = channel.channel.render(&delivery, &Occasion { now, links: &plan.links, detour: None });
    let scrubber = plan.scrubber();
    let body = show_body(&parcel, &scrubber);
    if args.json {
        let body = serde_json::from_slice(&body).unwrap_or_else(|_| String::from_utf8_lossy(&body).into());
        let headers = show_headers(&parcel, &scrubber);
        let endpoint = parcel.endpoint.masked();
        return shell.print_json(&Shown {
            channel: channel.id.as_str(),
            kind: channel.kind.name,
            endpoint,
            headers,
            body,
        });
    }
    shell.out.write_all(&body)?;
    // For a terminal only: a pipe gets the body to the byte.
    if shell.out_is_terminal && !body.ends_with(b"\n") {
        shell.out.write_all(b"\n")?;
    }
    Ok(())
}

/// The body as the endpoint reads it, without secrets.
fn show_body(parcel: &Parcel, scrubber: &Scrubber) -> Vec<u8> {
    let mut body = parcel.body.to_vec();
    if parcel.headers.get(http::header::CONTENT_ENCODING).is_some_and(|value| value == "gzip") {
        let mut unpacked = Vec::new();
        let unpacking = flate2::read::GzDecoder::new(parcel.body.as_ref()).take(UNPACKED_BYTES_MAX);
        if { unpacking }.read_to_end(&mut unpacked).is_ok() {
            body = unpacked;
        }
    }
    match String::from_utf8(body) {
        Ok(text) => scrubber.scrub(&text).into_bytes(),
        Err(other) => other.into_bytes(),
    }
}

fn show_headers(parcel: &Parcel, scrubber: &Scrubber) -> BTreeMap<String, String> {
    let show = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        let shown = if value.is_sensitive() {
            "[secret]".into()
        } else {
            scrubber.scrub(&String::from_utf8_lossy(value.as_bytes()))
        };
        (name.to_string(), shown)
    };
    parcel.headers.iter().map(show).collect()
}
