//! Columns of text, laid out as Go's `text/tabwriter` does, because scripts and eyes know Docker's spacing.
//!
//! A cell ends at a tab. A column is a run of neighbouring lines that have such a cell; its width is the widest cell plus the
//! padding, at least the minimum. What follows the last tab is not a cell: no trailing blanks.

/// The layout's two numbers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tabs {
    pub(crate) width_min: usize,
    pub(crate) padding: usize,
}

impl Tabs {
    /// What Docker's listings use.
    pub(crate) const LISTING: Self = Self { width_min: 10, padding: 3 };
    /// What `top` uses.
    pub(crate) const WIDE: Self = Self { width_min: 20, padding: 3 };

    /// Lays out lines of tab-terminated cells; the result ends with a newline when there are lines.
    pub(crate) fn layout(self, text: &str) -> String {
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split('\t').collect()).collect();
        let mut out = String::with_capacity(text.len() * 2);
        self.block(&lines, &mut Vec::new(), &mut out);
        out
    }

    /// Writes `lines`, whose first `widths.len()` columns are settled.
    fn block(self, lines: &[Vec<&str>], widths: &mut Vec<usize>, out: &mut String) {
        let column = widths.len();
        let has_cell = |line: &Vec<&str>| line.len() > column + 1;
        let mut start = 0;
        while start < lines.len() {
            if !has_cell(&lines[start]) {
                write_line(&lines[start], widths, out);
                start += 1;
                continue;
            }
            let run = lines[start..].iter().take_while(|line| has_cell(line)).count();
            let rows = &lines[start..start + run];
            let widest = rows.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
            // Go drops a column in which every cell is empty.
            let width = if widest == 0 { 0 } else { (widest + self.padding).max(self.width_min) };
            widths.push(width);
            self.block(rows, widths, out);
            widths.pop();
            start += run;
        }
    }
}

fn write_line(cells: &[&str], widths: &[usize], out: &mut String) {
    for (index, cell) in cells.iter().enumerate() {
        out.push_str(cell);
        if let Some(width) = widths.get(index).filter(|_| index + 1 < cells.len()) {
            out.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.chars().count())));
        }
    }
    out.push('\n');
}

/// At most `limit` characters, the last one an ellipsis when something was cut.
pub(crate) fn shortened(text: &str, limit: usize) -> String {
    if text.chars().count() <= limit {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(limit.saturating_sub(1)).collect();
    short.push('…');
    short
}

/// A bar of `width` cells with the part from `start` to `end` (fractions of the whole) filled, at least one cell.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0..=width before the cast")]
#[expect(clippy::cast_precision_loss, reason = "a bar has few cells")]
pub(crate) fn bars(start: f64, end: f64, width: usize) -> String {
    let cell = |fraction: f64| (fraction.clamp(0.0, 1.0) * width as f64).floor() as usize;
    let from = cell(start).min(width.saturating_sub(1));
    let to = cell(end).clamp(from + 1, width.max(from + 1));
    (0..width).map(|i| if (from..to).contains(&i) { '█' } else { '·' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_spacing() {
        let text = "CONTAINER ID\tIMAGE\tNAMES\nabc\tbusybox:1.36\tweb\n";
        assert_eq!(
            Tabs::LISTING.layout(text),
            "CONTAINER ID   IMAGE          NAMES\nabc            busybox:1.36   web\n"
        );
        assert_eq!(Tabs::LISTING.layout("A\tB\n"), "A         B\n");
        assert_eq!(Tabs::LISTING.layout("é\tB\nee\tC\n"), "é         B\nee        C\n");
        assert_eq!(Tabs::LISTING.layout(""), "");
        assert_eq!(Tabs::LISTING.layout("no cells\n"), "no cells\n");
    }

    #[test]
    fn a_column_is_a_run_of_lines() {
        let text = "a\tb\nplain\nlonglonglong\tb\n";
        assert_eq!(Tabs { width_min: 0, padding: 1 }.layout(text), "a b\nplain\nlonglonglong b\n");
    }

    #[test]
    fn short() {
        assert_eq!(shortened("sleep 1000", 20), "sleep 1000");
        assert_eq!(shortened("123456", 5), "1234…");
    }

    #[test]
    fn bar() {
        assert_eq!(bars(0.0, 0.5, 4), "██··");
        assert_eq!(bars(1.0, 1.0, 4), "···█");
        assert_eq!(bars(0.5, 0.5, 4), "··█·");
        assert_eq!(bars(-1.0, 9.0, 3), "███");
    }
}
