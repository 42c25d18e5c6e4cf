//! `token`: make a token for the API. The token is shown once; the configuration holds its hash alone.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::{Failure, Shell, choice};
use crate::{
    config::is_token_name,
    model::{Role, hex},
};

/// What a token begins with, so that people and secret scanners know it when they see it.
const PREFIX: &str = "ivt_";

/// Flags.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  A token for somebody who leads:
    interven-alerts token soc-lead --role admin
  A token for the firewall, nowhere on the screen:
    interven-alerts token firewall --role publisher --json > token.json

Roles:
  auditor    reads: channels, dead letters, approvals, exports
  analyst    and approves, denies, tests, replays, pauses and resumes
  admin      and changes channels, and purges
  publisher  may publish decisions, and nothing else")]
pub struct Args {
    /// Whose token it is: 1 to 64 letters, digits, `.`, `_`, `@` and `-`; it stands in the record of who did what
    #[arg(value_parser = parse_name)]
    name: String,
    /// What it may do: auditor, analyst, admin or publisher
    #[arg(long, value_name = "ROLE", value_parser = choice::role(), hide_possible_values = true)]
    role: Role,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn parse_name(text: &str) -> Result<String, &'static str> {
    if is_token_name(text) {
        Ok(text.to_owned())
    } else {
        Err("must be 1 to 64 letters, digits, `.`, `_`, `@` and `-`")
    }
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Made<'a> {
    name: &'a str,
    role: Role,
    token: &'a str,
    sha256: &'a str,
    toml: &'a str,
}

/// Runs the command.
pub fn run(args: &Args, shell: &mut Shell<'_>) -> Result<(), Failure> {
    let mut random = [0_u8; 32];
    if let Err(error) = getrandom::fill(&mut random) {
        let failure = Failure::new("the system gave no random bytes");
        return Err(Failure { causes: vec![error.to_string()], ..failure });
    }
    let token = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(random));
    let sha256 = hex(&Sha256::digest(token.as_bytes()));
    let Args { name, role, json } = args;
    let toml = format!("[[access.token]]\nname = \"{name}\"\nrole = \"{role}\"\nsha256 = \"{sha256}\"\n");
    if *json {
        return shell.print_json(&Made { name, role: *role, token: &token, sha256: &sha256, toml: &toml });
    }
    Ok(write!(shell.out, "The token, shown this once:\n\n{token}\n\nAdd to the configuration:\n\n{toml}")?)
}
