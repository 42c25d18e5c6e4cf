//! What the next page says once: a cookie that is gone when it has been said.
//!
//! It is sealed with the key of the sessions. Otherwise whoever can set a cookie for our name, as a neighbour under the same
//! domain can, could put words into the console's mouth.

use axum::{
    http::{HeaderMap, HeaderValue, header::COOKIE, header::SET_COOKIE},
    response::Response,
};

use crate::{
    console::{Flash, Text, Tone},
    sealing::Key,
};

/// The name of the cookie.
const NAME: &str = "interven_said";

/// What the key is used for here.
const PURPOSE: &str = "flash";

/// The longest text, in characters, and the longest cookie, in bytes.
const CHARS_MAX: usize = 400;
const BYTES_MAX: usize = 3 * 1_024;

/// How long it may wait for the next page, in seconds.
const LASTS: u32 = 60;

/// Leaves a text for the next page.
pub(super) fn leave(key: &Key, response: &mut Response, tone: Tone, text: &str) {
    let text: String = text.chars().take(CHARS_MAX).collect();
    // Without it the page says what is the case, and only not that it was just done.
    let Ok(sealed) = key.seal(PURPOSE, NAME, format!("{}:{text}", tone.as_str()).as_bytes()) else { return };
    set(response, &sealed, LASTS);
}

/// Takes the text from the browser.
pub(super) fn forget(response: &mut Response) {
    set(response, "", 0);
}

fn set(response: &mut Response, value: &str, lasts: u32) {
    let cookie = format!("{NAME}={value}; Path=/; Max-Age={lasts}; HttpOnly; SameSite=Strict");
    if let Ok(cookie) = HeaderValue::try_from(cookie) {
        response.headers_mut().append(SET_COOKIE, cookie);
    }
}

/// The text that was left.
pub(super) fn read(key: &Key, headers: &HeaderMap) -> Option<Flash> {
    let pairs = headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(';'));
    let mut ours = pairs.filter_map(|pair| pair.trim().split_once('=')).filter(|(name, _)| *name == NAME);
    let (_, sealed) = ours.next().filter(|(_, sealed)| sealed.len() <= BYTES_MAX)?;
    let plain = key.open(PURPOSE, NAME, sealed)?;
    let (tone, text) = std::str::from_utf8(&plain).ok()?.split_once(':')?;
    let tone = Tone::ALL.into_iter().find(|one| one.as_str() == tone)?;
    Some(Flash { tone, text: Text::long(text) })
}
