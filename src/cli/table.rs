//! Aligned columns for people.

/// Rows under a heading, two spaces apart, no trailing spaces, no colours.
pub(super) fn aligned<const N: usize>(heading: [&str; N], rows: &[[String; N]]) -> String {
    Columns::new(&heading).lines(rows)
}

/// A table that comes in parts. A column gets wider where a later part needs it.
pub(super) struct Columns {
    widths: Vec<usize>,
    /// Until it is written.
    heading: Option<Vec<String>>,
}

impl Columns {
    pub(super) fn new(heading: &[&str]) -> Columns {
        Columns {
            widths: vec![0; heading.len()],
            heading: Some(heading.iter().map(|text| (*text).to_owned()).collect()),
        }
    }

    /// The next rows, the first with the heading above them.
    pub(super) fn lines<R: AsRef<[String]>>(&mut self, rows: &[R]) -> String {
        let heading = self.heading.take();
        let all = || {
            heading
                .as_deref()
                .into_iter()
                .chain(rows.iter().map(AsRef::as_ref))
        };
        for row in all() {
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut out = String::new();
        for row in all() {
            let mut line = String::new();
            for (width, cell) in self.widths.iter().zip(row) {
                let missing = width.saturating_sub(cell.chars().count());
                line.push_str(cell);
                line.extend(std::iter::repeat_n(' ', missing + 2));
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }
}

/// A peer's text without control characters: a device must not be able to paint on the
/// operator's terminal.
pub(super) fn shown(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() || is_invisible(character) {
            out.extend(character.escape_default());
        } else {
            out.push(character);
        }
    }
    out
}

/// Characters that turn the direction of text or hide, so that two names look alike.
fn is_invisible(character: char) -> bool {
    matches!(character, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}'
        | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [
            ["a".to_owned(), "1".to_owned()],
            ["übergrößer".to_owned(), "2".to_owned()],
        ];
        assert_eq!(
            aligned(["NAME", "N"], &rows),
            "NAME        N\na           1\nübergrößer  2\n"
        );
    }

    #[test]
    fn a_table_in_parts_has_one_heading_and_keeps_its_widths() {
        let mut columns = Columns::new(&["NAME", "N"]);
        let row = |name: &str| vec![name.to_owned(), "1".to_owned()];
        assert_eq!(columns.lines(&[row("longer")]), "NAME    N\nlonger  1\n");
        assert_eq!(columns.lines(&[row("a")]), "a       1\n");
    }

    #[test]
    fn sec_25_escape_codes_of_a_device_do_not_reach_the_terminal() {
        assert_eq!(
            shown("a\u{1b}[31mb\r\n\u{202e}ü"),
            "a\\u{1b}[31mb\\r\\n\\u{202e}ü"
        );
    }
}
