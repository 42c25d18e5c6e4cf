//! Flags of commands that ask running workers, and their failures. How workers are asked is in [`crate::workers`].

use url::Url;

use super::{Exit, Failure, Shell, place, url_argument};
use crate::{
    model::Secret,
    settings::printable,
    workers::{Credential, Server, Servers, Trouble, Unheard, server::addresses},
};

/// The variable that names workers.
const SERVER: &str = "INTERVEN_ALERTS_SERVER";

/// The variable that holds the token. A flag would show it to everybody on the machine.
const TOKEN: &str = "INTERVEN_ALERTS_TOKEN";

/// The name of the flag that names them, in the parser.
pub const FLAG: &str = "servers";

/// Flags of every command that asks workers.
#[derive(Clone, Debug, clap::Args)]
// Every command's flags have this name, and a group of it would be there twice.
#[group(skip)]
pub struct Args {
    /// The API of a running worker: http://HOST:PORT, repeatable; a name with several addresses means all of them
    ///
    /// The token is taken from the variable INTERVEN_ALERTS_TOKEN.
    #[arg(id = FLAG, help_heading = place::WHERE, long = "server", global = true, value_name = "URL", env = SERVER, hide_env_values = true, value_delimiter = ',')]
    servers: Vec<String>,
}

impl Args {
    /// The URLs that were given. A variable that is set to nothing gives none.
    pub fn given(&self) -> impl Iterator<Item = &str> {
        self.servers.iter().map(|url| url.trim()).filter(|url| !url.is_empty())
    }
}

/// The workers that were named, each address by itself.
pub async fn find(args: &Args, shell: &mut Shell<'_>) -> Result<Servers, Failure> {
    if args.given().next().is_none() {
        return Err(Failure::new("no worker was named")
            .hint("give `--server http://HOST:PORT` (repeatable), or set INTERVEN_ALERTS_SERVER")
            .exit(Exit::Usage));
    }
    let credential = credential((shell.env)(TOKEN))?;
    let mut workers = Vec::new();
    for text in args.given() {
        let url = url_argument(text)?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Failure::new("the URL of a worker holds credentials")
                .hint(format!("leave them out, and put the token into {TOKEN}"))
                .exit(Exit::Usage));
        }
        let found = addresses(&url).await.ok_or_else(|| unknown(&url))?;
        let host = || printable(url.host_str().unwrap_or_default());
        if url.scheme() == "http" && found.iter().any(|address| !address.ip().is_loopback()) {
            let host = host();
            shell.say("warning", &format!("the token travels to {host} in clear: use https, or a tunnel"));
        }
        let several = found.len() > 1;
        for address in found {
            let server = Server::new(&url, address, several, credential.clone());
            workers.push(server.map_err(|why| Failure::new(why).hint("install the package `ca-certificates`"))?);
        }
    }
    Ok(Servers::new(workers))
}

fn unknown(url: &Url) -> Failure {
    let host = printable(url.host_str().unwrap_or_default());
    Failure::new(format!("`{host}` has no address")).hint("check the name of the worker's host")
}

/// The failure that a worker's trouble is.
pub fn failure(server: &str, trouble: Trouble) -> Failure {
    match trouble {
        Trouble::Silent(why) => Failure::new(format!("{server} did not answer"))
            .caused_by(why)
            .hint("check the address, and that a worker runs there"),
        Trouble::Refused { message, hint, .. } => Failure::new(format!("{server}: {message}")).hint(hint),
    }
}

/// The failures that workers are which did not say what they were asked.
pub fn failures(unheard: Vec<Unheard>) -> Vec<Failure> {
    unheard.into_iter().map(|Unheard { server, trouble }| failure(&server, trouble)).collect()
}

/// Says what went wrong with some workers. All but the last are told here; the last is the failure to end with.
pub fn end(mut failures: Vec<Failure>, shell: &mut Shell<'_>) -> Result<(), Failure> {
    let last = failures.pop();
    for failure in failures {
        shell.say("error", &failure.problem);
    }
    last.map_or(Ok(()), Err)
}

/// The token as workers are shown it.
fn credential(token: Option<String>) -> Result<Credential, Failure> {
    let missing = || {
        Failure::new("there is no token")
            .hint(format!(
                "put a token of `[[access.token]]` into the variable {TOKEN}; `interven-alerts token` makes one"
            ))
            .exit(Exit::Usage)
    };
    let token = token.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty()).ok_or_else(missing)?;
    Credential::bearer(&Secret::new(token)).ok_or_else(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_needed_and_does_not_print() {
        for missing in [None, Some(String::new()), Some(String::from(" \n")), Some(String::from("a\nb"))] {
            assert_eq!(credential(missing).unwrap_err().exit, Exit::Usage);
        }
        let credential = credential(Some(String::from("ivt_abc\n"))).unwrap();
        assert!(!format!("{credential:?}").contains("abc"));
    }
}
