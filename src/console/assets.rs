//! The stylesheet and the script: part of the program, under names that change with what is in them.
//!
//! So a browser may keep them for ever, and a worker of a newer version is never shown with the look of an older one.

use std::sync::LazyLock;

use sha2::{Digest as _, Sha256};

/// One file.
#[derive(Debug)]
pub struct Asset {
    /// Where it is.
    pub path: String,
    /// What it is.
    pub content_type: &'static str,
    /// What is in it.
    pub body: &'static str,
}

pub(super) static STYLE: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("css", "text/css; charset=utf-8", include_str!("assets/console.css")));

pub(super) static SCRIPT: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("js", "text/javascript; charset=utf-8", include_str!("assets/console.js")));

impl Asset {
    fn new(kind: &str, content_type: &'static str, body: &'static str) -> Self {
        let digest = Sha256::digest(body.as_bytes());
        let mark = digest.iter().take(8).fold(0, |mark: u64, byte| mark << 8 | u64::from(*byte));
        Self { path: format!("/assets/console.{mark:016x}.{kind}"), content_type, body }
    }
}

/// The file at this path.
pub fn asset(path: &str) -> Option<&'static Asset> {
    [&*STYLE, &*SCRIPT].into_iter().find(|asset| asset.path == path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_found_under_the_name_of_its_content_alone() {
        for one in [&*STYLE, &*SCRIPT] {
            assert!(std::ptr::eq(asset(&one.path).unwrap(), one) && !one.body.is_empty());
            // Nothing from elsewhere, and nothing that a strict policy would refuse.
            assert!(!one.body.contains("://") && !one.body.contains("@import") && !one.body.contains("eval("));
        }
        assert!(asset("/assets/console.css").is_none() && asset("").is_none());
    }
}
