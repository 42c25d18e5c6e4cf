//! The addresses that the worker listens on: free, taken by a worker, or taken by somebody else, and by whom.

use std::{
    fs,
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    path::Path,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::Finding;
use crate::config::HttpPlan;

/// How long whoever listens may take to say who it is, and how much of it is read.
const ANSWER_MAX: Duration = Duration::from_secs(2);
const ANSWER_BYTES_MAX: u64 = 1024 * 1024;

/// Looks at both addresses. `in_use` says whether a running worker has this configuration's data directory.
pub(super) async fn look(http: &HttpPlan, in_use: bool) -> Vec<Finding> {
    // What only a worker answers.
    let api = ("[http] listen", http.listen, "/api/openapi.json", "interven-alerts");
    let metrics = ("[http] metrics_listen", http.metrics_listen, "/metrics", "interven_alerts_build_info");
    let mut findings = Vec::new();
    for (key, address, path, sign) in [api, metrics] {
        findings.push(one(key, address, path, sign, in_use).await);
    }
    findings
}

async fn one(key: &str, address: SocketAddr, path: &str, sign: &str, in_use: bool) -> Finding {
    let part = key.trim_start_matches("[http] ");
    if address.port() == 0 {
        return Finding::well(part, "any port that is free: the log says which one");
    }
    // Listening is the only way to know; it is over at once.
    let error = match TcpListener::bind(address) {
        Ok(_) => return Finding::well(part, format!("{address} is free")),
        Err(error) => error,
    };
    let taken = error.kind() == ErrorKind::AddrInUse;
    if !taken {
        let hint = format!("set `{key}` to an address of this machine and a port that this user may listen on");
        return Finding::ill(part, format!("cannot listen on {address}")).because(error.to_string()).hint(hint);
    }
    let is_worker = ask(reachable(address), path).await.is_some_and(|answer| answer.contains(sign));
    match (is_worker, in_use) {
        (true, true) => Finding::well(part, format!("{address} is the running worker's")),
        (true, false) => Finding::ill(part, format!("{address} is another worker's, of another `data_dir`"))
            .hint(format!("give each worker of this machine ports of its own: set `{key}`")),
        (false, _) => {
            let who = holder(address.port()).unwrap_or_else(|| String::from("a program that this user cannot see"));
            Finding::ill(part, format!("{address} is taken by {who}"))
                .hint(format!("stop that program, or set `{key}` to another port"))
        }
    }
}

/// Where this machine reaches whoever listens on `address`.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// What is answered to a GET, head and body as they come.
async fn ask(address: SocketAddr, path: &str) -> Option<String> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = Vec::new();
        stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await.ok()?;
        Some(String::from_utf8_lossy(&answer).into_owned())
    };
    tokio::time::timeout(ANSWER_MAX, exchange).await.ok().flatten()
}

/// The process that listens on this port, as far as this user may know: `` `nginx` (process 812)``.
fn holder(port: u16) -> Option<String> {
    let inodes: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| table.lines().filter_map(|line| listening(line, port)).collect::<Vec<_>>())
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let path = process.path();
        let Some(id) = path.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok()) else { continue };
        if holds(&path, &inodes) {
            let name = fs::read_to_string(path.join("comm")).unwrap_or_default();
            return Some(format!("`{}` (process {id})", name.trim()));
        }
    }
    None
}

/// The inode of the socket in a line of `/proc/net/tcp`, if it listens on this port. Source: proc(5).
fn listening(line: &str, port: u16) -> Option<String> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [_, local, _, state, ..] = fields[..] else { return None };
    let here = u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()? == port;
    (here && state == "0A").then(|| fields.get(9).map(ToString::to_string)).flatten()
}

fn holds(process: &Path, inodes: &[String]) -> bool {
    let Ok(files) = fs::read_dir(process.join("fd")) else { return false };
    files.flatten().any(|file| {
        let target = fs::read_link(file.path()).unwrap_or_default();
        inodes.iter().any(|inode| target.as_os_str() == inode.as_str())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_table_of_sockets_is_read() {
        let line =
            "   1: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 424242 1 0000";
        assert_eq!(listening(line, 8080).as_deref(), Some("424242"));
        assert_eq!(listening(line, 8081), None);
        assert_eq!(listening(&line.replace(" 0A ", " 01 "), 8080), None, "it is a connection");
        assert_eq!(listening("  sl  local_address rem_address", 8080), None);
    }

    #[tokio::test]
    async fn an_address_is_free_or_it_is_said_who_has_it() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let finding = one("[http] listen", address, "/", "never", false).await;
        let us = format!("(process {})", std::process::id());
        assert!(finding.health == super::super::Health::Ill && finding.says.contains(&us), "{finding:?}");
        let (mut free, other) = (address, "192.0.2.1:9".parse().unwrap());
        free.set_port(0);
        assert_eq!(one("[http] listen", free, "/", "never", false).await.health, super::super::Health::Well);
        let finding = one("[http] listen", other, "/", "never", false).await;
        assert!(finding.says.starts_with("cannot listen on 192.0.2.1:9"), "{finding:?}");
    }
}
