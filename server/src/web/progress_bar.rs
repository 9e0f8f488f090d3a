//! Progress bars in a program's stderr, such as those of tqdm.

/// Maximum bytes of a line that is searched for a bar.
const LINE_BYTES: usize = 512;

/// A bar in its last state.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Bar {
    pub(super) percent: u8,
    pub(super) text: String,
}

/// Parser of bars in pieces of stderr.
#[derive(Debug, Default)]
pub(super) struct Bars {
    pub(super) newest: Option<Bar>,
    line: Vec<u8>,
}

impl Bars {
    /// Bars overwrite their line with carriage returns.
    pub(super) fn take(&mut self, data: &[u8]) {
        let tail = &data[data.len().saturating_sub(LINE_BYTES)..];
        self.line.extend_from_slice(tail);
        if let Some(end) = self.line.iter().rposition(|byte| *byte == b'\n') {
            self.line.drain(..=end);
        }
        if self.line.len() > LINE_BYTES {
            self.line.drain(..self.line.len() - LINE_BYTES);
        }
        let line = String::from_utf8_lossy(&self.line);
        let newest = line.rsplit('\r').map(str::trim).find(|it| !it.is_empty());
        self.newest =
            newest.and_then(bar).or_else(|| if tail.ends_with(b"\n") { None } else { self.newest.take() });
    }
}

/// `45%|███   | 45/100 [00:10<00:12, 4.5it/s]`, perhaps with a title before it.
fn bar(line: &str) -> Option<Bar> {
    let (before, after) = line.split_once("%|")?;
    let digits = before.rsplit(|c: char| !c.is_ascii_digit()).next()?;
    let percent: u8 = digits.parse().ok().filter(|it| *it <= 100)?;
    let title = before[..before.len() - digits.len()].trim().trim_end_matches(':');
    let figures = after.split_once('|').map_or("", |(_, figures)| figures.trim());
    let text = [title, figures].into_iter().filter(|it| !it.is_empty()).collect::<Vec<_>>().join(" ");
    Some(Bar { percent, text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_of_tqdm_are_parsed() {
        let parsed = bar("epoch 3:  45%|████▌     | 45/100 [00:10<00:12,  4.50it/s]").unwrap();
        assert_eq!(parsed, Bar { percent: 45, text: "epoch 3 45/100 [00:10<00:12,  4.50it/s]".into() });
        assert_eq!(bar("  7%|▋ | 7/100").unwrap().percent, 7);
        for none in ["", "100 %", "a 500%| |", "50% done", "%|"] {
            assert_eq!(bar(none), None, "{none}");
        }
    }

    #[test]
    fn newest_bar_is_kept_until_its_line_ends() {
        let mut bars = Bars::default();
        for part in ["\r 10%|█", "    | 1/10", "\r 20%|██   | 2/10 [00:0"] {
            bars.take(part.as_bytes());
        }
        assert_eq!(bars.newest.as_ref().unwrap().percent, 20);
        bars.take(b"\r100%|##| 10/10 [00:01<00:00]\n");
        assert_eq!(bars.newest, None);
        bars.take(&[b'x'; 100_000]);
        assert!(bars.line.len() <= LINE_BYTES);
    }
}
