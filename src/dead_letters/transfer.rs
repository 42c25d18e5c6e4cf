//! Export and import: one letter per line, as JSON, so that `jq`, a text editor and another store can read it.

use std::io;

use futures_util::future::join_all;
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::{DeadLetter, DeadLetterError, ImportReport, LetterFilter, Store, reading::Want};

/// A longer line is no letter: a body of 128 MiB in which every byte is written as `\u0000`.
const LINE_BYTES_MAX: u64 = 6 * 128 * 1024 * 1024 + 1024 * 1024;
/// Letters that are written together, and the bytes after which a batch is full.
const BATCH_LETTERS: usize = 256;
const BATCH_BYTES: usize = 8 * 1024 * 1024;
/// Faulty lines that the report names.
const FAULTY_NAMED_MAX: usize = 100;

impl Store {
    /// Writes every letter that `filter` means to `out`, newest first; returns how many. Damaged ones are left out, with a
    /// warning in the log.
    pub async fn export<W: AsyncWrite + Unpin>(
        &self,
        filter: &LetterFilter,
        out: &mut W,
    ) -> Result<u64, DeadLetterError> {
        let fault = |source| DeadLetterError::Transfer { what: "write the export", source };
        let limit = filter.limit.unwrap_or(usize::MAX);
        let (mut letters, mut next) = (0_usize, None);
        while letters < limit {
            let step = self.step(next, filter, Want::Letters, limit - letters).await?;
            for found in step.found {
                let Some(kept) = found.kept else {
                    tracing::warn!(letter = %found.head.id, "a damaged dead letter is not in the export");
                    continue;
                };
                let mut line = serde_json::to_vec(&kept.letter).map_err(io::Error::from).map_err(fault)?;
                line.push(b'\n');
                out.write_all(&line).await.map_err(fault)?;
                letters += 1;
            }
            for id in step.damaged {
                tracing::warn!(letter = %id, "a damaged dead letter is not in the export");
            }
            next = step.next;
            if next.is_none() {
                break;
            }
        }
        out.flush().await.map_err(fault)?;
        Ok(letters as u64)
    }

    /// Adds every letter of an export that is not here yet. Lines that are no letters are reported, and the rest goes on;
    /// doing it again adds nothing.
    pub async fn import<R: AsyncBufRead + Unpin>(&self, input: &mut R) -> Result<ImportReport, DeadLetterError> {
        let mut report = ImportReport::default();
        let (mut batch, mut bytes, mut line, mut number) = (Vec::new(), 0, Vec::new(), 0_u64);
        loop {
            line.clear();
            let read = (&mut *input).take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await;
            let read = read.map_err(|source| DeadLetterError::Transfer { what: "read the import", source })?;
            number += 1;
            let text = line.trim_ascii();
            if !text.is_empty() {
                match serde_json::from_slice::<DeadLetter>(text) {
                    Ok(letter) => {
                        bytes += letter.body.len();
                        batch.push(self.restore(letter));
                    }
                    Err(error) => {
                        report.faulty_total += 1;
                        if report.faulty.len() < FAULTY_NAMED_MAX {
                            report.faulty.push((number, error.to_string()));
                        }
                    }
                }
            }
            if read == 0 || batch.len() >= BATCH_LETTERS || bytes >= BATCH_BYTES {
                bytes = 0;
                for restored in join_all(std::mem::take(&mut batch)).await {
                    if restored? {
                        report.imported += 1;
                    } else {
                        report.already_there += 1;
                    }
                }
            }
            if read == 0 {
                return Ok(report);
            }
        }
    }
}
