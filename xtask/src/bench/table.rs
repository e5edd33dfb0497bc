//! Tables in Markdown, aligned for whoever reads the source.

/// A table in the making.
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new<S: Into<String>>(headings: impl IntoIterator<Item = S>) -> Self {
        Self { rows: vec![headings.into_iter().map(Into::into).collect()] }
    }

    pub(super) fn row<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    /// The first column is text, the others numbers.
    pub(super) fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or_default();
        let cell = |row: &[String], column: usize| row.get(column).cloned().unwrap_or_default();
        let widths: Vec<usize> = (0..columns)
            .map(|column| {
                self.rows.iter().map(|row| cell(row, column).chars().count()).max().unwrap_or_default().max(3)
            })
            .collect();
        let line = |row: &[String]| {
            let cells = widths.iter().enumerate().map(|(column, width)| match column {
                0 => format!(" {:<width$} ", cell(row, column)),
                _ => format!(" {:>width$} ", cell(row, column)),
            });
            format!("|{}|\n", cells.collect::<Vec<_>>().join("|"))
        };
        let rule = widths.iter().enumerate().map(|(column, width)| match column {
            0 => "-".repeat(width + 2),
            _ => format!("{}:", "-".repeat(width + 1)),
        });
        let rule = format!("|{}|\n", rule.collect::<Vec<_>>().join("|"));
        let mut lines = self.rows.iter().map(|row| line(row));
        let head = lines.next().unwrap_or_default();
        head + &rule + &lines.collect::<String>()
    }
}

/// `text` with what is between the markers of `section` replaced; `None` if it lacks them.
pub(super) fn replace_section(text: &str, section: &str, new: &str) -> Option<String> {
    let (begin, end) = (format!("<!-- begin {section} -->\n"), format!("<!-- end {section} -->"));
    let (head, rest) = text.split_once(&begin)?;
    let (_, tail) = rest.split_once(&end)?;
    Some(format!("{head}{begin}\n{new}\n{end}{tail}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new(["what", "a"]);
        table.row(["exits", "1200"]);
        assert_eq!(table.render(), "| what  |    a |\n|-------|-----:|\n| exits | 1200 |\n");
    }

    #[test]
    fn only_the_section_changes() {
        let text = "before\n<!-- begin x -->\nold\n<!-- end x -->\nafter\n";
        let replaced = replace_section(text, "x", "new").unwrap();
        assert_eq!(replaced, "before\n<!-- begin x -->\n\nnew\n<!-- end x -->\nafter\n");
        assert_eq!(replace_section(&replaced, "x", "new").unwrap(), replaced);
        assert_eq!(replace_section(text, "y", "new"), None);
    }
}
