//! The pool's key: what is sealed with it can be read by every worker that has the key, and by nobody else.
//!
//! Channels that are made over the API hold webhook URLs and tokens, and wait in a log on the broker; sessions of the console are
//! cookies that every worker must know as its own. One key serves both: each use derives a key of its own from it, by its
//! purpose, so that what was made for one use means nothing in another.
//!
//! The key comes from `INTERVEN_ALERTS_KEY`, the same in the whole pool. A worker with the embedded broker is alone and makes a
//! key file for itself.
//!
//! Absent on purpose: rotation. A new key makes old sessions void and old channels unreadable, which is said loudly.

use std::{
    fmt, fs,
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

/// The shortest text that is taken for a key, in bytes. Shorter ones can be guessed.
pub const TEXT_BYTES_MIN: usize = 16;

/// The bytes of a key.
const KEY_BYTES: usize = 32;

/// The version of the layout of what is sealed.
const VERSION: &str = "v1.";

/// A text that is too short for a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a key has at least {TEXT_BYTES_MIN} characters")]
pub struct TooShort;

/// The key. It has no way to print itself. Cheap to clone, and every copy is wiped.
#[derive(Clone)]
pub struct Key(Zeroizing<[u8; KEY_BYTES]>);

impl Key {
    /// The key that `text` stands for, whatever text it is: its SHA-256.
    pub fn from_text(text: &str) -> Result<Self, TooShort> {
        let text = text.trim();
        if text.len() < TEXT_BYTES_MIN {
            return Err(TooShort);
        }
        Ok(Self(Zeroizing::new(Sha256::digest(text).into())))
    }

    /// A key that nobody else has.
    pub fn random() -> io::Result<Self> {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        getrandom::fill(&mut bytes[..]).map_err(|error| io::Error::other(error.to_string()))?;
        Ok(Self(bytes))
    }

    /// The key in the file at `path`, which is made, for its owner only, where it is missing. One worker at a time asks for it: whose
    /// directory it is.
    pub fn in_file(path: &Path) -> io::Result<Self> {
        let mut text = Zeroizing::new(String::new());
        match fs::File::open(path) {
            Ok(file) => drop(file.take(4_096).read_to_string(&mut text)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => text = make_file(path)?,
            Err(error) => return Err(error),
        }
        Self::from_text(&text).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    /// The key for one purpose.
    pub fn derive(&self, purpose: &str) -> Zeroizing<[u8; KEY_BYTES]> {
        Zeroizing::new(self.mac("derive", purpose.as_bytes()))
    }

    /// A code that only this key gives for `text`, for a purpose.
    #[expect(clippy::missing_panics_doc, reason = "HMAC takes a key of any length")]
    pub fn mac(&self, purpose: &str, text: &[u8]) -> [u8; KEY_BYTES] {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0[..]).expect("HMAC takes a key of any length");
        mac.update(&u64::try_from(purpose.len()).unwrap_or(u64::MAX).to_be_bytes());
        mac.update(purpose.as_bytes());
        mac.update(text);
        mac.finalize().into_bytes().into()
    }

    /// `plain` so that only who has the key can read it or make another. `about` is not hidden, and what was sealed about one
    /// thing cannot be opened about another.
    #[expect(clippy::missing_panics_doc, reason = "the lengths are the algorithm's own")]
    pub fn seal(&self, purpose: &str, about: &str, plain: &[u8]) -> io::Result<String> {
        let mut nonce = [0; NONCE_LEN];
        // Random: a pool seals some thousands of things in its life, and 96 bits collide after billions.
        getrandom::fill(&mut nonce).map_err(|error| io::Error::other(error.to_string()))?;
        let mut sealed = plain.to_vec();
        self.cipher(purpose)
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(about), &mut sealed)
            .expect("a plain text is shorter than 256 GiB");
        let mut whole = nonce.to_vec();
        whole.append(&mut sealed);
        Ok(format!("{VERSION}{}", BASE64_URL_SAFE_NO_PAD.encode(whole)))
    }

    /// What was sealed; `None` where it was not by this key, for this purpose, about this.
    pub fn open(&self, purpose: &str, about: &str, sealed: &str) -> Option<Zeroizing<Vec<u8>>> {
        let mut whole = BASE64_URL_SAFE_NO_PAD.decode(sealed.strip_prefix(VERSION)?).ok()?;
        let (nonce, sealed) = whole.split_at_mut_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let plain = self.cipher(purpose).open_in_place(nonce, Aad::from(about), sealed).ok()?;
        Some(Zeroizing::new(plain.to_vec()))
    }

    fn cipher(&self, purpose: &str) -> LessSafeKey {
        let key = UnboundKey::new(&CHACHA20_POLY1305, &self.derive(purpose)[..]);
        LessSafeKey::new(key.expect("ChaCha20-Poly1305 takes a key of 32 bytes"))
    }
}

/// Makes a key file, and returns what is in it. Written beside its place first: a crash in the middle must leave no empty file
/// there, with which no worker could start, and what was sealed with the key must not outlive it.
fn make_file(path: &Path) -> io::Result<Zeroizing<String>> {
    let beside = path.with_extension("new");
    if let Err(error) = fs::remove_file(&beside)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let mut bytes = Zeroizing::new([0; KEY_BYTES]);
    getrandom::fill(&mut bytes[..]).map_err(|error| io::Error::other(error.to_string()))?;
    let text = Zeroizing::new(BASE64_URL_SAFE_NO_PAD.encode(&bytes[..]));
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    fs::File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()?;
    Ok(text)
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[key]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Key {
        Key::from_text(text).unwrap()
    }

    #[test]
    fn what_is_sealed_opens_with_the_same_key_purpose_and_subject_only() {
        let ours = key("0123456789abcdef");
        let sealed = ours.seal("channels", "soc", b"https://hooks.slack.com/secret").unwrap();
        assert_eq!(&ours.open("channels", "soc", &sealed).unwrap()[..], b"https://hooks.slack.com/secret");
        assert!(!sealed.contains("hooks") && sealed != ours.seal("channels", "soc", b"x").unwrap());
        assert!(key("0123456789abcdeF").open("channels", "soc", &sealed).is_none());
        assert!(ours.open("sessions", "soc", &sealed).is_none());
        assert!(ours.open("channels", "other", &sealed).is_none());
        for at in 0..sealed.len() {
            let mut bytes = sealed.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            assert!(ours.open("channels", "soc", std::str::from_utf8(&bytes).unwrap()).is_none(), "byte {at}");
        }
        for bad in ["", "v1.", "v1.AAAA", "v2.AAAA", "é"] {
            assert!(ours.open("channels", "soc", bad).is_none());
        }
    }

    #[test]
    fn a_key_file_is_made_once_for_its_owner_only() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let made = Key::in_file(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(made.derive("x"), Key::in_file(&path).unwrap().derive("x"));
        // What a crash left beside it is nobody's key.
        fs::remove_file(&path).unwrap();
        fs::write(dir.path().join("key.new"), "").unwrap();
        let made = Key::in_file(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(made.derive("x"), Key::in_file(&path).unwrap().derive("x"));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "the key is alone");
        fs::write(&path, "short").unwrap();
        assert_eq!(Key::in_file(&path).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_key_does_not_print_and_a_short_text_is_none() {
        assert_eq!(format!("{:?}", key("0123456789abcdef")), "[key]");
        assert_eq!(Key::from_text(" 0123456789abcde ").unwrap_err(), TooShort);
        assert_ne!(key("0123456789abcdef").mac("ab", b"c"), key("0123456789abcdef").mac("a", b"bc"));
    }
}
