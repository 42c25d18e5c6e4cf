//! Whether the configuration has changed: a hash of the file and of every file that it names.
//!
//! By content, and not by the file's inode or time: Kubernetes swaps a link to a whole directory, editors write a new file and
//! rename it, and both look like nothing happened, or like everything did, to who watches one inode.

use std::{io::Read as _, path::Path};

use sha2::{Digest as _, Sha256};

use super::FILE_BYTES_MAX;
use crate::settings::{self, Outside};

/// What a configuration held at one moment. It is made of secrets, and prints nothing of them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Glimpse([u8; 32]);

impl Glimpse {
    /// Looks at the file at `path` and at every file that it names. A file that cannot be read is a state like any other.
    pub fn of(path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Self {
        let mut hash = Sha256::new();
        let mut put = |tag: u8, bytes: &[u8]| {
            hash.update([tag]);
            hash.update((bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        };
        match read(path) {
            Ok(bytes) => {
                put(b'c', &bytes);
                let directory = path.parent().unwrap_or(Path::new(""));
                let text = String::from_utf8_lossy(&bytes);
                for (path, content) in settings::files_named(&text, &Outside::new(env, directory)) {
                    put(b'p', path.as_os_str().as_encoded_bytes());
                    match content {
                        Ok(content) => put(b'f', content.expose().as_bytes()),
                        Err(problem) => put(b'e', problem.as_bytes()),
                    }
                }
            }
            Err(error) => put(b'e', error.to_string().as_bytes()),
        }
        Self(hash.finalize().into())
    }
}

impl std::fmt::Debug for Glimpse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Glimpse")
    }
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_glimpse_changes_with_the_file_and_with_the_files_that_it_names_and_with_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let (config, secret) = (dir.path().join("config.toml"), dir.path().join("secret"));
        let look = || Glimpse::of(&config, &|_| None);
        let mut seen = vec![look()];
        let mut changed = |what: &str| {
            let now = look();
            assert!(!seen.contains(&now), "{what} was not seen");
            seen.push(now);
            assert_eq!(look(), now, "{what} was seen twice");
        };
        fs::write(&config, "[[channel]]\nwebhook_url_file = \"secret\"\n").unwrap();
        changed("a file that is there now");
        fs::write(&secret, "one").unwrap();
        changed("a secret that is there now");
        fs::write(&secret, "two").unwrap();
        changed("another secret");
        fs::write(dir.path().join("third"), "two").unwrap();
        fs::rename(dir.path().join("third"), &secret).unwrap();
        assert_eq!(look(), *seen.last().unwrap(), "another inode with the same content is no change");
    }
}
