//! Rows in columns, as narrow as their contents.
//!
//! Cells are escaped here, so that no listing can forget it.

use super::output::printable;

/// Lines with aligned columns; empty when there are no rows.
pub(crate) fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let head = head.map(str::to_owned);
    let rows: Vec<[String; N]> = std::iter::once(head)
        .chain(
            rows.iter()
                .map(|row| row.each_ref().map(|cell| printable(cell))),
        )
        .collect();
    let mut widths = [0; N];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(row) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', width - cell.chars().count() + 2));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_have_no_tail() {
        let rows = [
            ["a".to_owned(), "1".to_owned()],
            ["größer".to_owned(), "22".to_owned()],
        ];
        assert_eq!(
            table(["NAME", "N"], &rows),
            "NAME    N\na       1\ngrößer  22\n"
        );
        assert_eq!(table(["NAME"], &[]), "");
    }
}
