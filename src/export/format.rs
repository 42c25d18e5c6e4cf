//! The five formats of an export, and how decisions are written one after the other in each.
//!
//! `json` and `datadog` are one array; `splunk` is event objects, one a line, as the HTTP Event Collector takes them in one request;
//! `ndjson` is a decision a line, as it was published; `csv` has a header. An export of nothing is a document too.

use std::borrow::Cow;

use bytes::Bytes;

use crate::{
    formats::{Payload, csv, datadog, json::Compact, splunk},
    model::Decision,
};

/// How an export is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One array of decisions.
    Json,
    /// Comma-separated values, with a header.
    Csv,
    /// Event objects for Splunk's HTTP Event Collector.
    Splunk,
    /// One array of log objects for Datadog.
    Datadog,
    /// A decision a line.
    Ndjson,
}

/// A text that is none of the formats.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not a format: use one of json, csv, splunk, datadog, ndjson", .0.escape_debug())]
pub struct UnknownFormat(String);

impl Format {
    /// Every format, in the order of the product page.
    pub const ALL: [Self; 5] = [Self::Json, Self::Csv, Self::Splunk, Self::Datadog, Self::Ndjson];

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Csv => "csv",
            Self::Splunk => "splunk",
            Self::Datadog => "datadog",
            Self::Ndjson => "ndjson",
        }
    }

    /// What HTTP calls it. Several objects in one body are no `application/json`.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Json | Self::Datadog => "application/json",
            Self::Csv => "text/csv; charset=utf-8; header=present",
            Self::Splunk | Self::Ndjson => "application/x-ndjson",
        }
    }

    /// How a file of it is called.
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Csv => "csv",
            Self::Splunk => "splunk.ndjson",
            Self::Datadog => "datadog.json",
            Self::Ndjson => "ndjson",
        }
    }

    /// The byte that may be sent, as the `at`th, while there is nothing to send yet: so that neither we nor a proxy in between
    /// takes a long scan for a dead connection. Where it is part of the document, [`Writer::begin`] writes it again.
    pub(super) fn filler(self, at: usize) -> Option<u8> {
        match self {
            // White space before a value means nothing.
            Self::Json | Self::Datadog | Self::Splunk | Self::Ndjson => Some(b' '),
            Self::Csv => csv::HEADER.as_bytes().get(at).copied(),
        }
    }

    /// Whether fillers are the beginning of the document.
    pub(super) const fn filler_is_content(self) -> bool {
        matches!(self, Self::Csv)
    }
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(text: &str) -> Result<Self, UnknownFormat> {
        let known = Self::ALL.into_iter().find(|format| format.as_str() == text);
        known.ok_or_else(|| UnknownFormat(text.chars().take(40).collect()))
    }
}

/// Writes decisions one after the other.
#[derive(Debug)]
pub(super) struct Writer {
    format: Format,
    written: u64,
}

impl Writer {
    pub(super) fn new(format: Format) -> Self {
        Self { format, written: 0 }
    }

    /// How many decisions were written.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    pub(super) fn begin(&self, out: &mut Vec<u8>) {
        match self.format {
            Format::Json | Format::Datadog => out.push(b'['),
            Format::Csv => out.extend_from_slice(csv::HEADER.as_bytes()),
            Format::Splunk | Format::Ndjson => {}
        }
    }

    /// Writes one decision; false of what is none, of which nothing is written.
    pub(super) fn row(&mut self, out: &mut Vec<u8>, body: &[u8]) -> bool {
        let Some(text) = self.text(body) else { return false };
        self.before(out);
        out.extend_from_slice(&text);
        if matches!(self.format, Format::Ndjson | Format::Splunk) {
            out.push(b'\n');
        }
        self.written += 1;
        true
    }

    fn text<'b>(&self, body: &'b [u8]) -> Option<Cow<'b, [u8]>> {
        let decode = || Decision::decode(Bytes::copy_from_slice(body)).ok();
        let text = match self.format {
            // A line break in valid JSON is always between tokens. Without one it goes as it came, unread.
            Format::Json | Format::Ndjson if !body.iter().any(|byte| matches!(byte, b'\n' | b'\r')) => {
                return Some(Cow::Borrowed(body));
            }
            Format::Json | Format::Ndjson => Compact::of_raw(&Bytes::copy_from_slice(body)).as_str().to_owned(),
            Format::Csv => csv::row(&decode()?),
            Format::Splunk => {
                let decision = decode()?;
                splunk::event(&decision, Payload::Json(Compact::of(&decision).as_str()))
            }
            Format::Datadog => {
                let decision = decode()?;
                // Without the present time: an export is read later, and the time is what it is about.
                datadog::log(&decision, Payload::Json(Compact::of(&decision).as_str()), None)
            }
        };
        Some(Cow::Owned(text.into_bytes()))
    }

    /// What stands between the elements of an array.
    fn before(&self, out: &mut Vec<u8>) {
        match (self.format, self.written) {
            (Format::Json | Format::Datadog, 0) => out.push(b'\n'),
            (Format::Json | Format::Datadog, _) => out.extend_from_slice(b",\n"),
            (Format::Csv | Format::Splunk | Format::Ndjson, _) => {}
        }
    }

    pub(super) fn end(&self, out: &mut Vec<u8>) {
        match (self.format, self.written) {
            (Format::Json | Format::Datadog, 0) => out.extend_from_slice(b"]\n"),
            (Format::Json | Format::Datadog, _) => out.extend_from_slice(b"\n]\n"),
            (Format::Csv | Format::Splunk | Format::Ndjson, _) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::formats::hostile;

    fn document(format: Format, bodies: &[&[u8]]) -> String {
        let (mut writer, mut out) = (Writer::new(format), Vec::new());
        writer.begin(&mut out);
        for body in bodies {
            assert!(writer.row(&mut out, body));
        }
        writer.end(&mut out);
        assert_eq!(writer.written(), bodies.len() as u64);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_export_of_nothing_is_a_document() {
        let documents = Format::ALL.map(|format| document(format, &[]));
        assert_eq!(documents, ["[]\n", csv::HEADER, "", "[]\n", ""]);
    }

    #[test]
    fn a_format_is_known_by_its_name_alone() {
        for format in Format::ALL {
            assert_eq!(format.as_str().parse(), Ok(format));
        }
        for text in ["", "JSON", "xml"] {
            assert!(text.parse::<Format>().unwrap_err().to_string().contains("ndjson"), "{text}");
        }
    }

    #[test]
    fn what_is_sent_to_keep_a_connection_alive_does_not_change_the_document() {
        let header: Vec<u8> = (0..).map_while(|at| Format::Csv.filler(at)).collect();
        assert_eq!(header, csv::HEADER.as_bytes());
        let with_spaces = format!("   {}", document(Format::Json, &[hostile::EXAMPLE.as_bytes()]));
        assert_eq!(serde_json::from_str::<Value>(&with_spaces).unwrap().as_array().unwrap().len(), 1);
    }

    #[test]
    fn what_is_no_decision_leaves_nothing_behind() {
        for format in [Format::Csv, Format::Splunk, Format::Datadog] {
            let (mut writer, mut out) = (Writer::new(format), Vec::new());
            assert!(!writer.row(&mut out, b"{}"));
            assert!(out.is_empty() && writer.written() == 0);
        }
    }

    proptest! {
        #[test]
        fn any_decisions_make_a_document_with_one_element_for_each(decisions in prop::collection::vec(hostile::decision(), 1..5)) {
            let bodies: Vec<&[u8]> = decisions.iter().map(|decision| &decision.raw()[..]).collect();
            let plain: Vec<Value> = bodies.iter().map(|body| serde_json::from_slice(body).unwrap()).collect();
            let array = |format| serde_json::from_str::<Vec<Value>>(&document(format, &bodies)).unwrap();
            let lines = |format| {
                document(format, &bodies).lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect::<Vec<_>>()
            };
            prop_assert_eq!(&array(Format::Json), &plain);
            prop_assert_eq!(&lines(Format::Ndjson), &plain);
            let inner = |values: Vec<Value>, key: &str| values.into_iter().map(|mut value| value[key].take()).collect::<Vec<_>>();
            prop_assert_eq!(&inner(lines(Format::Splunk), "event"), &plain);
            prop_assert_eq!(&inner(array(Format::Datadog), "interven"), &plain);
            prop_assert_eq!(document(Format::Csv, &bodies).matches("\r\n").count(), 1 + bodies.len());
        }
    }
}
