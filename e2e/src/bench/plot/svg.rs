//! A line chart as plain SVG: axes with units, a value at each point, a legend.

use std::fmt::Write as _;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 440.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 30.0;
const TOP: f64 = 50.0;
/// Of the axis; below it stand its values, its name, the legend, the machine.
const BOTTOM: f64 = 320.0;
/// Told apart by colour-blind people too (Okabe and Ito).
const COLOURS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];
/// Lines across the chart.
const STEPS: f64 = 5.0;

pub struct Series {
    pub name: String,
    /// Ascending by x.
    pub points: Vec<(f64, f64)>,
}

pub struct Chart<'a> {
    pub title: &'a str,
    pub x_axis: &'a str,
    pub y_axis: &'a str,
    /// Of the x axis.
    pub logarithmic: bool,
    pub series: Vec<Series>,
    /// Below everything.
    pub under: &'a str,
}

impl Chart<'_> {
    pub fn draw(&self) -> String {
        let points = || self.series.iter().flat_map(|series| &series.points);
        let mut xs: Vec<f64> = points().map(|(x, _)| *x).collect();
        xs.sort_by(f64::total_cmp);
        xs.dedup();
        let step = nice_step(points().map(|(_, y)| *y).fold(0.0, f64::max) / STEPS);
        let top = step * STEPS;
        let along = |x: f64| if self.logarithmic { x.ln() } else { x };
        let (first, last) = (along(xs[0]), along(xs[xs.len() - 1]));
        let at_x = |x: f64| {
            LEFT + 20.0 + (along(x) - first) / (last - first).max(f64::EPSILON) * (WIDTH - LEFT - RIGHT - 40.0)
        };
        let at_y = |y: f64| BOTTOM - y / top * (BOTTOM - TOP);

        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n"
        );
        let mut text = |x: f64, y: f64, how: &str, words: &str| {
            let words = words.replace('&', "&amp;").replace('<', "&lt;");
            writeln!(out, "<text x=\"{x:.1}\" y=\"{y:.1}\" fill=\"#222\" {how}>{words}</text>")
                .expect("a String takes all");
        };
        text(WIDTH / 2.0, 26.0, "text-anchor=\"middle\" font-size=\"16\"", self.title);
        text(WIDTH / 2.0, BOTTOM + 38.0, "text-anchor=\"middle\"", self.x_axis);
        let turned = format!("text-anchor=\"middle\" transform=\"rotate(-90 18 {:.1})\"", (TOP + BOTTOM) / 2.0);
        text(18.0, (TOP + BOTTOM) / 2.0, &turned, self.y_axis);
        for x in &xs {
            text(at_x(*x), BOTTOM + 18.0, "text-anchor=\"middle\"", &number(*x));
        }
        for n in 0..=STEPS as u32 {
            let y = step * f64::from(n);
            text(LEFT - 8.0, at_y(y) + 4.0, "text-anchor=\"end\"", &number(y));
        }
        for (n, series) in self.series.iter().enumerate() {
            let (column, row) = (n % 2, n / 2);
            let (x, y) = (LEFT + 350.0 * column as f64, BOTTOM + 60.0 + 16.0 * row as f64);
            text(x + 24.0, y, "", &series.name);
            for point in &series.points {
                text(at_x(point.0), at_y(point.1) - 8.0, "text-anchor=\"middle\" font-size=\"10\"", &number(point.1));
            }
        }
        text(LEFT, HEIGHT - 8.0, "font-size=\"10\"", self.under);

        for n in 0..=STEPS as u32 {
            let y = at_y(step * f64::from(n));
            let colour = if n == 0 { "#222" } else { "#ddd" };
            line(&mut out, (LEFT, y), (WIDTH - RIGHT, y), colour);
        }
        line(&mut out, (LEFT, TOP), (LEFT, BOTTOM), "#222");
        for (n, series) in self.series.iter().enumerate() {
            let colour = COLOURS[n % COLOURS.len()];
            let way: Vec<String> =
                series.points.iter().map(|(x, y)| format!("{:.1},{:.1}", at_x(*x), at_y(*y))).collect();
            let drawn = format!(
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\n",
                way.join(" ")
            );
            out += &drawn;
            for (x, y) in &series.points {
                writeln!(out, "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3.5\" fill=\"{colour}\"/>", at_x(*x), at_y(*y))
                    .expect("a String takes all");
            }
            let (x, y) = (LEFT + 350.0 * (n % 2) as f64, BOTTOM + 56.0 + 16.0 * (n / 2) as f64);
            writeln!(out, "<rect x=\"{x:.1}\" y=\"{:.1}\" width=\"18\" height=\"4\" fill=\"{colour}\"/>", y - 2.0)
                .expect("a String takes all");
        }
        out + "</svg>\n"
    }
}

fn line(out: &mut String, (x1, y1): (f64, f64), (x2, y2): (f64, f64), colour: &str) {
    let drawn = format!("<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"{colour}\"/>\n");
    *out += &drawn;
}

/// The smallest of 1, 2, 2.5, 5 times a power of ten that is not below `least`.
fn nice_step(least: f64) -> f64 {
    if least <= 0.0 {
        return 1.0;
    }
    let power = 10f64.powf(least.log10().floor());
    [1.0, 2.0, 2.5, 5.0, 10.0]
        .map(|factor| factor * power)
        .into_iter()
        .find(|step| *step >= least)
        .unwrap_or(power * 10.0)
}

/// As few digits as say it.
fn number(value: f64) -> String {
    let text = if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") };
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_go_up_in_round_steps() {
        assert_eq!([0.0, 0.9, 1.1, 2.1, 3.0, 7.0].map(nice_step), [1.0, 0.9_f64.ceil(), 2.0, 2.5, 5.0, 10.0]);
        assert_eq!([0.0, 2.5, 5.0, 1000.0].map(number), ["0", "2.5", "5", "1000"]);
    }

    #[test]
    fn a_chart_shows_every_point_and_every_series() {
        let series =
            ["a & b", "c"].map(|name| Series { name: name.to_owned(), points: vec![(100.0, 5.0), (5000.0, 4.0)] });
        let chart =
            Chart { title: "t", x_axis: "x", y_axis: "y", logarithmic: true, series: series.into(), under: "u" };
        let drawn = chart.draw();
        assert_eq!(drawn.matches("<circle").count(), 4);
        assert_eq!(drawn.matches("<polyline").count(), 2);
        assert!(drawn.contains("a &amp; b") && !drawn.contains("NaN"), "{drawn}");
    }
}
