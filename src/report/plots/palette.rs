//! A colour and a shape for every class.
//!
//! The numbers of colours and of shapes share no factor, so a class takes the next of both and no pair repeats before
//! all 56 are used. Up to eight classes differ in shape alone, up to seven in colour alone.
//!
//! Blue, vermilion, green and yellow are those of Okabe and Ito, "Color Universal Design" (2008); magenta and indigo
//! are from the "bright" and "muted" schemes of Tol, "Colour Schemes", SRON/EPS/TN/09-002 (2021). The others were
//! chosen so that the tests below hold: on its background each colour keeps the contrast that WCAG 2.1 (criterion
//! 1.4.11) asks of graphics, and every two stay apart under red-green blindness.

use plotters::style::RGBColor;

/// How the points of a class look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::report) struct Mark {
    /// On white.
    pub light: RGBColor,
    /// On the background of dark pages.
    pub dark: RGBColor,
    pub shape: Outline,
}

/// The background of dark pages, as their style sheet has it.
#[cfg(test)]
pub(in crate::report) const DARK_PAPER: RGBColor = RGBColor(21, 24, 29);

/// Each hue on white and on dark.
pub(in crate::report) const COLORS: [(RGBColor, RGBColor); 7] = [
    (RGBColor(0, 114, 178), RGBColor(0, 114, 178)),
    (RGBColor(213, 94, 0), RGBColor(213, 94, 0)),
    (RGBColor(0, 158, 115), RGBColor(0, 158, 115)),
    (RGBColor(170, 51, 119), RGBColor(255, 156, 203)),
    (RGBColor(110, 75, 0), RGBColor(240, 228, 66)),
    (RGBColor(51, 34, 136), RGBColor(143, 140, 232)),
    (RGBColor(38, 38, 38), RGBColor(242, 242, 242)),
];

/// The look of class number `class`.
pub(in crate::report) fn mark(class: usize) -> Mark {
    let (light, dark) = COLORS[class % COLORS.len()];
    Mark { light, dark, shape: Outline::ALL[class % Outline::ALL.len()] }
}

/// The outline of a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::report) enum Outline {
    Disc,
    Square,
    Triangle,
    Diamond,
    Plus,
    TriangleDown,
    Cross,
    Star,
}

impl Outline {
    const ALL: [Self; 8] = [
        Self::Disc,
        Self::Square,
        Self::Triangle,
        Self::Diamond,
        Self::Plus,
        Self::TriangleDown,
        Self::Cross,
        Self::Star,
    ];

    /// The corners around the origin, y downwards; none for a disc of radius 1, whose area all others have about.
    pub(in crate::report) fn corners(self) -> &'static [(f64, f64)] {
        match self {
            Self::Disc => &[],
            Self::Square => &[(-0.88, -0.88), (0.88, -0.88), (0.88, 0.88), (-0.88, 0.88)],
            Self::Triangle => &[(0.0, -1.5), (1.3, 0.75), (-1.3, 0.75)],
            Self::TriangleDown => &[(0.0, 1.5), (-1.3, -0.75), (1.3, -0.75)],
            Self::Diamond => &[(0.0, -1.3), (1.2, 0.0), (0.0, 1.3), (-1.2, 0.0)],
            Self::Plus => &[
                (-0.36, -1.25),
                (0.36, -1.25),
                (0.36, -0.36),
                (1.25, -0.36),
                (1.25, 0.36),
                (0.36, 0.36),
                (0.36, 1.25),
                (-0.36, 1.25),
                (-0.36, 0.36),
                (-1.25, 0.36),
                (-1.25, -0.36),
                (-0.36, -0.36),
            ],
            // The plus, turned by 45 degrees.
            Self::Cross => &[
                (0.0, -0.51),
                (0.63, -1.14),
                (1.14, -0.63),
                (0.51, 0.0),
                (1.14, 0.63),
                (0.63, 1.14),
                (0.0, 0.51),
                (-0.63, 1.14),
                (-1.14, 0.63),
                (-0.51, 0.0),
                (-1.14, -0.63),
                (-0.63, -1.14),
            ],
            Self::Star => &[
                (0.0, -1.5),
                (0.4, -0.55),
                (1.43, -0.46),
                (0.65, 0.21),
                (0.88, 1.21),
                (0.0, 0.68),
                (-0.88, 1.21),
                (-0.65, 0.21),
                (-1.43, -0.46),
                (-0.4, -0.55),
            ],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// sRGB to linear light (IEC 61966-2-1).
    fn linear(RGBColor(r, g, b): RGBColor) -> [f64; 3] {
        [r, g, b].map(|value| {
            let c = f64::from(value) / 255.0;
            if c <= 0.04045 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) }
        })
    }

    fn times(matrix: &[[f64; 3]; 3], v: [f64; 3]) -> [f64; 3] {
        matrix.map(|row| row.iter().zip(v).map(|(m, x)| m * x).sum())
    }

    /// Perceptual coordinates: Ottosson, "A perceptual color space for image processing" (2020).
    fn oklab(linear: [f64; 3]) -> [f64; 3] {
        const TO_LMS: [[f64; 3]; 3] = [
            [0.412_221_470_8, 0.536_332_536_3, 0.051_445_992_9],
            [0.211_903_498_2, 0.680_699_545_1, 0.107_396_956_6],
            [0.088_302_461_9, 0.281_718_837_6, 0.629_978_700_5],
        ];
        const TO_LAB: [[f64; 3]; 3] = [
            [0.210_454_255_3, 0.793_617_785, -0.004_072_046_8],
            [1.977_998_495_1, -2.428_592_205, 0.450_593_709_9],
            [0.025_904_037_1, 0.782_771_766_2, -0.808_675_766],
        ];
        times(&TO_LAB, times(&TO_LMS, linear).map(f64::cbrt))
    }

    /// WCAG 2.1: the ratio of the relative luminances.
    fn contrast(a: RGBColor, b: RGBColor) -> f64 {
        let luminance = |color| linear(color).iter().zip([0.2126, 0.7152, 0.0722]).map(|(c, w)| c * w).sum::<f64>();
        let (a, b) = (luminance(a) + 0.05, luminance(b) + 0.05);
        a.max(b) / a.min(b)
    }

    const NORMAL: [[f64; 3]; 3] = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
    // Machado, Oliveira and Fernandes, "A Physiologically-based Model for Simulation of Color Vision Deficiency"
    // (IEEE TVCG 2009), severity 1, on linear RGB.
    const PROTANOPIA: [[f64; 3]; 3] =
        [[0.152_286, 1.052_583, -0.204_868], [0.114_503, 0.786_281, 0.099_216], [-0.003_882, -0.048_116, 1.051_998]];
    const DEUTERANOPIA: [[f64; 3]; 3] =
        [[0.367_322, 0.860_646, -0.227_968], [0.280_085, 0.672_501, 0.047_413], [-0.011_820, 0.042_940, 0.968_881]];

    #[test]
    fn no_two_classes_look_alike() {
        let distinct = COLORS.len() * Outline::ALL.len();
        assert_eq!(distinct, 56);
        for a in 0..distinct {
            for b in 0..a {
                assert!(mark(a).light != mark(b).light || mark(a).shape != mark(b).shape, "{b} and {a}");
                assert!(mark(a).dark != mark(b).dark || mark(a).shape != mark(b).shape, "{b} and {a}");
            }
        }
        assert_eq!(mark(distinct), mark(0));
        assert!((0..8).all(|a| (0..a).all(|b| mark(a).shape != mark(b).shape)), "eight classes without colour");
    }

    #[test]
    fn colours_stay_apart_for_colour_blind_readers() {
        // Okabe and Ito's own seven colours have 0.076 by this measure.
        let distance = |matrix, a, b| {
            let [a, b] = [a, b].map(|color| oklab(times(matrix, linear(color)).map(|c| c.clamp(0.0, 1.0))));
            a.iter().zip(b).map(|(x, y)| (x - y).powi(2)).sum::<f64>().sqrt()
        };
        for matrix in [&NORMAL, &PROTANOPIA, &DEUTERANOPIA] {
            for (i, a) in COLORS.iter().enumerate() {
                for b in &COLORS[..i] {
                    assert!(distance(matrix, a.0, b.0) > 0.1, "{a:?} {b:?}: {}", distance(matrix, a.0, b.0));
                    assert!(distance(matrix, a.1, b.1) > 0.1, "{a:?} {b:?}: {}", distance(matrix, a.1, b.1));
                }
            }
        }
    }

    #[test]
    fn colours_stand_out_from_the_background() {
        assert!((contrast(RGBColor(0, 0, 0), RGBColor(255, 255, 255)) - 21.0).abs() < 1e-9);
        for (light, dark) in COLORS {
            assert!(contrast(light, RGBColor(255, 255, 255)) >= 3.0, "{light:?}");
            assert!(contrast(dark, DARK_PAPER) >= 3.0, "{dark:?}");
        }
    }

    #[test]
    fn shapes_weigh_the_same() {
        for shape in Outline::ALL.into_iter().filter(|&shape| shape != Outline::Disc) {
            let corners = shape.corners();
            let next = corners.iter().cycle().skip(1);
            let twice: f64 = corners.iter().zip(next).map(|(a, b)| a.0 * b.1 - b.0 * a.1).sum();
            assert!((0.9..1.1).contains(&(twice.abs() / 2.0 / std::f64::consts::PI)), "{shape:?}: {}", twice / 2.0);
        }
    }
}
