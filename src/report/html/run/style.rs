//! The style sheet, with the colours of the plots on dark pages.

use std::fmt::Write;

use plotters::style::RGBColor;

use crate::report::html::hex;
use crate::report::plots::palette;
use crate::report::plots::style::{FAINT, GREY, INK, PAPER};

/// The whole sheet. Plots are drawn once, for white paper: rules for the colours in them follow the page's own.
pub(super) fn sheet() -> String {
    let mut sheet = include_str!("run.css").to_owned();
    for (color, name) in [(PAPER, "paper"), (INK, "ink"), (GREY, "grey"), (FAINT, "faint")] {
        recolor(&mut sheet, color, &format!("var(--{name})"));
    }
    sheet.push_str("@media (prefers-color-scheme: dark) {\n");
    for (light, dark) in palette::COLORS.into_iter().filter(|(light, dark)| light != dark && *light != INK) {
        recolor(&mut sheet, light, &hex(dark));
    }
    sheet.push_str("}\n");
    sheet
}

fn recolor(sheet: &mut String, from: RGBColor, to: &str) {
    let from = hex(from);
    for property in ["fill", "stroke"] {
        // Writing to a string cannot fail.
        let _ = writeln!(sheet, ".plot [{property}=\"{from}\" i] {{ {property}: {to}; }}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_colour_of_the_plots_has_one_on_dark_pages() {
        let sheet = sheet();
        assert!(sheet.contains(".plot [fill=\"#ffffff\" i] { fill: var(--paper); }"), "{sheet}");
        let (_, dark) = sheet.rsplit_once("@media (prefers-color-scheme: dark)").unwrap();
        assert!(dark.contains("[stroke=\"#aa3377\" i] { stroke: #ff9ccb; }"), "{dark}");
        assert_eq!(sheet.matches('{').count(), sheet.matches('}').count());
    }
}
