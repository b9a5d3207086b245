//! The trade-off as a drawing: false alerts per home-day (logarithmic) against mean hours to detect.

use std::fmt::Write as _;

use super::score::Score;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 440.0;
const MARGIN: f64 = 60.0;

/// An SVG of a curve and of single points beside it.
#[must_use]
pub(super) fn svg(curve: &[(String, Score)], points: &[(String, Score)]) -> String {
    let x = |rate: f64| MARGIN + (rate.clamp(0.001, 1.0).log10() + 3.0) / 3.0 * (WIDTH - 2.0 * MARGIN);
    let y = |hours: f64| HEIGHT - MARGIN - hours.clamp(0.0, 12.0) / 12.0 * (HEIGHT - 2.0 * MARGIN);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
    );
    let (left, right, bottom, top) = (MARGIN, WIDTH - MARGIN, HEIGHT - MARGIN, MARGIN);
    for rate in [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0] {
        let at = x(rate);
        let _ = writeln!(
            out,
            "<path d=\"M{at:.1} {bottom}V{top}\" stroke=\"#ddd\"/><text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{rate}</text>",
            bottom + 16.0
        );
    }
    for hours in [0.0, 2.0, 4.0, 6.0, 8.0, 10.0, 12.0] {
        let at = y(hours);
        let _ = writeln!(
            out,
            "<path d=\"M{left} {at:.1}H{right}\" stroke=\"#ddd\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{hours}</text>",
            left - 6.0,
            at + 4.0
        );
    }
    let _ = writeln!(
        out,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">每户每天误报 / false alerts per home-day</text>\
         <text x=\"{left}\" y=\"{:.1}\">平均发现时间（小时）/ mean hours to detect</text>",
        WIDTH / 2.0,
        HEIGHT - 16.0,
        top - 16.0
    );
    let line: Vec<String> = curve.iter().map(|(_, s)| format!("{:.1},{:.1}", x(s.false_per_day), y(s.mean))).collect();
    let _ = writeln!(out, "<polyline points=\"{}\" fill=\"none\" stroke=\"#0a6\" stroke-width=\"2\"/>", line.join(" "));
    let dots = curve.iter().map(|c| (c, "#0a6")).chain(points.iter().map(|p| (p, "#b33")));
    for ((name, score), colour) in dots {
        let (cx, cy) = (x(score.false_per_day), y(score.mean));
        let _ = writeln!(
            out,
            "<circle cx=\"{cx:.1}\" cy=\"{cy:.1}\" r=\"4\" fill=\"{colour}\"/><text x=\"{:.1}\" y=\"{:.1}\" fill=\"{colour}\">{name}</text>",
            cx + 6.0,
            cy - 5.0
        );
    }
    out.push_str("</svg>\n");
    out
}
