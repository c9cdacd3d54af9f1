//! The scatter plot as a page: zoom, and the image behind every point.

use std::path::Path;

use serde_json::{Value, json};

use super::{Page, data_uri, hex};
use crate::error::{Error, Result};
use crate::report::plots::{Picture, Scatter, drawing_order, opacity, palette, radius};
use crate::system::files::create_folder;
use crate::system::shown::{Shown, printable};

/// Writes the scatter plot as one HTML file that needs no other: it zooms, shows the image, path, class, split and
/// prediction of a point, hides classes and shows misclassified points alone.
///
/// `thumbnails` is asked once for each point, in order, for a small image file, such as
/// [`thumbnail`](crate::pixels::thumbnail) makes; what it gives makes up most of the page's size, so beyond some thousand points
/// it should return none for some.
///
/// # Errors
/// [`Error::Plot`] when there are no points, or one has no finite place or no named class, [`Error::Io`] when the file
/// cannot be written.
pub fn save_scatter_page(
    path: &Path,
    scatter: &Scatter,
    thumbnails: &mut dyn FnMut(usize) -> Option<Vec<u8>>,
) -> Result<()> {
    scatter.problem().map_or(Ok(()), Err).map_err(Error::plot(path))?;
    let data = super::json(&data(scatter, thumbnails)).map_err(|error| Error::plot(path)(error.to_string()))?;
    let page = Page {
        title: &scatter.title,
        subtitle: &scatter.subtitle,
        style: include_str!("scatter.css"),
        body: include_str!("scatter.html"),
        data: &data,
        script: include_str!("scatter.js"),
    };
    create_folder(path.parent().unwrap_or(Path::new(".")))?;
    page.save(path)
}

/// What `scatter.js` reads.
fn data(scatter: &Scatter, thumbnails: &mut dyn FnMut(usize) -> Option<Vec<u8>>) -> Value {
    let n = scatter.points.len();
    let mut splits: Vec<&str> = scatter.points.iter().map(|point| point.split.as_str()).collect();
    splits.sort_unstable();
    splits.dedup();
    // Less than a pixel on any screen, however far it is zoomed.
    let rounded = |value: f64| (value * 1e5).round() / 1e5;
    let point = |(i, (x, y)): (usize, (f64, f64))| {
        let point = &scatter.points[i];
        json!({
            "x": rounded(x),
            "y": rounded(y),
            "class": point.class,
            "predicted": point.predicted,
            "split": splits.binary_search(&point.split.as_str()).unwrap_or(0),
            "path": point.path.shown(),
            "image": thumbnails(i).as_deref().and_then(data_uri),
        })
    };
    let mut points: Vec<Value> = scatter.places().into_iter().enumerate().map(point).collect();
    let mixed: Vec<Value> = drawing_order(n).into_iter().map(|i| points[i].take()).collect();
    let class = |(number, (name, count)): (usize, (&String, usize))| {
        let palette::Mark { light, dark, shape } = palette::mark(number);
        let (light, dark, corners) = (hex(light), hex(dark), shape.corners());
        json!({ "name": printable(name), "count": count, "light": light, "dark": dark, "corners": corners })
    };
    let classes: Vec<Value> = scatter.classes.iter().zip(scatter.counts()).enumerate().map(class).collect();
    let (radius, opacity) = (radius(n) / 2.0, opacity(n));
    json!({ "classes": classes, "splits": splits, "radius": radius, "opacity": opacity, "points": mixed })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::plots::ScatterPoint;

    fn scatter() -> Scatter {
        let point = |i: usize| ScatterPoint {
            x: i as f64,
            y: 1e300 * i as f64,
            class: i % 2,
            split: ["val", "test"][i % 2].into(),
            path: format!("{i}.png").into(),
            predicted: (i == 3).then_some(0),
        };
        let classes = vec!["</script>".into(), "b\n".into()];
        Scatter { title: "t".into(), subtitle: String::new(), classes, points: (0..5).map(point).collect() }
    }

    /// The data of a page, as a browser reads it.
    fn read(page: &str) -> serde_json::Value {
        let (_, rest) = page.split_once("id=\"data\">").unwrap();
        serde_json::from_str(rest.split_once("</script>").unwrap().0).unwrap()
    }

    #[test]
    fn every_point_arrives_with_its_own_image() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/scatter.html");
        let mut asked = Vec::new();
        let gif = |i: usize| format!("GIF89a{i}").into_bytes();
        let mut thumbnails = |i: usize| {
            asked.push(i);
            [Some(gif(i)), None, Some(b"no image".to_vec())].into_iter().nth(i % 3).flatten()
        };
        save_scatter_page(&path, &scatter(), &mut thumbnails).unwrap();
        assert_eq!(asked, [0, 1, 2, 3, 4]);
        let data = read(&std::fs::read_to_string(&path).unwrap());
        assert_eq!(data["classes"][0]["name"], "</script>");
        assert_eq!(data["classes"][1]["name"], "b\\n");
        assert_eq!(data["classes"][1]["count"], 2);
        let points = data["points"].as_array().unwrap();
        assert_eq!(points.len(), 5);
        for point in points {
            let i: usize = point["path"].as_str().unwrap().trim_end_matches(".png").parse().unwrap();
            let expected = &scatter().points[i];
            assert_eq!(point["class"], expected.class);
            assert_eq!(point["predicted"].as_u64().map(|class| class as usize), expected.predicted);
            assert_eq!(data["splits"][point["split"].as_u64().unwrap() as usize], expected.split.as_str());
            let image = i.is_multiple_of(3).then(|| data_uri(&gif(i)).unwrap());
            assert_eq!(point["image"].as_str(), image.as_deref());
            assert_eq!(point["y"], i as f64 / 2.0 - 1.0);
        }
    }

    #[test]
    fn what_cannot_be_drawn_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("scatter.html");
        let save = |path: &Path, scatter: &Scatter| save_scatter_page(path, scatter, &mut |_| None);
        assert!(matches!(save(&path, &Scatter::default()), Err(Error::Plot { .. })));
        assert!(!path.exists());
        std::fs::write(&path, "in the way").unwrap();
        assert!(matches!(save(&path.join("x.html"), &scatter()), Err(Error::Io { .. })));
    }

    #[test]
    fn the_palette_knows_the_background_of_the_page() {
        assert!(include_str!("base.css").contains(&format!("--paper: {};", hex(palette::DARK_PAPER))));
        assert!(include_str!("base.css").contains("--paper: #ffffff;"));
    }
}
