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

    /// The colours of one of the two schemes, by their names.
    fn colours(block: &str) -> std::collections::BTreeMap<&str, [f64; 3]> {
        let pairs = block.split("--").skip(1).filter_map(|pair| pair.split(';').next()?.split_once(": #"));
        let channel = |hex: &str, at: usize| f64::from(u8::from_str_radix(&hex[at..at + 2], 16).unwrap()) / 255.0;
        pairs.map(|(name, hex)| (name, [channel(hex, 0), channel(hex, 2), channel(hex, 4)])).collect()
    }

    /// How well one is read on the other. Source: WCAG 2.2, "contrast ratio" and "relative luminance".
    fn contrast(one: [f64; 3], other: [f64; 3]) -> f64 {
        let linear = |c: f64| if c <= 0.04045 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) };
        let light = |[r, g, b]: [f64; 3]| 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
        let (a, b) = (light(one), light(other));
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    }

    #[test]
    fn every_text_is_read_well_on_every_ground_that_it_stands_on_by_day_and_by_night() {
        // Source: WCAG 2.2, 1.4.3: at least 4.5 to 1.
        let day = STYLE.body.split(":root").nth(1).unwrap();
        let night = STYLE.body.split(":root").nth(2).unwrap();
        let mut pairs = vec![("on-accent", "accent"), ("text", "calm-ground"), ("surface", "good")];
        for ground in ["ground", "surface", "raised"] {
            pairs.extend(["text", "soft", "accent", "bad", "good", "warn"].map(|text| (text, ground)));
        }
        let states = [("good", "good-ground"), ("warn", "warn-ground"), ("bad", "bad-ground"), ("note", "note-ground")];
        pairs.extend(states.into_iter().chain([("calm", "calm-ground")]));
        for (name, block) in [("day", day), ("night", night)] {
            let colours = colours(block.split('}').next().unwrap());
            for (text, ground) in &pairs {
                let ratio = contrast(colours[text], colours[ground]);
                assert!(ratio >= 4.5, "by {name}, {text} on {ground}: {ratio:.2}");
            }
        }
    }
}
