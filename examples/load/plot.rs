//! Curves over time as an SVG that any browser shows.

use std::fmt::Write;

/// One curve, from zero to its largest value.
pub struct Panel {
    pub title: &'static str,
    pub values: Vec<f64>,
}

/// Panels below one another over the same `minutes`.
pub fn plot(panels: &[Panel], minutes: f64) -> String {
    let height = panels.len() * (HEIGHT + GAP) + GAP;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {height}\" font-family=\"sans-serif\" \
         font-size=\"11\"><rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        WIDTH + 2 * GAP
    );
    for (index, panel) in panels.iter().enumerate() {
        curve(&mut svg, panel, GAP + index * (HEIGHT + GAP), minutes);
    }
    svg.push_str("</svg>\n");
    svg
}

fn curve(svg: &mut String, panel: &Panel, top: usize, minutes: f64) {
    let most = panel.values.iter().copied().fold(0.0, f64::max).max(f64::MIN_POSITIVE);
    let steps = panel.values.len().saturating_sub(1).max(1) as f64;
    let points: Vec<String> = (panel.values.iter().enumerate())
        .map(|(index, value)| {
            let x = GAP as f64 + WIDTH as f64 * index as f64 / steps;
            let y = top as f64 + HEIGHT as f64 * (1.0 - value / most);
            format!("{x:.1},{y:.1}")
        })
        .collect();
    // Writing to a string does not fail.
    let _ = writeln!(
        svg,
        "<text x=\"{GAP}\" y=\"{}\">{}, 0 to {most:.0}; {minutes:.0} minutes</text>\n\
         <rect x=\"{GAP}\" y=\"{top}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"none\" stroke=\"#bbb\"/>\n\
         <polyline fill=\"none\" stroke=\"#1f5fa8\" points=\"{}\"/>",
        top - 4,
        panel.title,
        points.join(" ")
    );
}

const WIDTH: usize = 720;
const HEIGHT: usize = 90;
const GAP: usize = 24;
