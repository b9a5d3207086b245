//! How much of a span is read at once. Rows lie in the order of beds and are wanted in that of time: a window is sorted in memory.

use std::time::Duration;

use carebed_pipeline::view::View;

use super::Span;

/// About so many rows are sorted at once; some 100 bytes each.
pub(super) const ROWS_AT_ONCE: u64 = 4 << 20;
/// A file is taken for so many places of equal weight.
const PLACES: u32 = 16;

/// The span in windows that follow each other, of about so many rows of `n_homes` (0: of all), as far as committed files tell.
pub(super) fn windows(view: &View, span: Span, n_homes: usize, rows_at_once: u64) -> Vec<Span> {
    let mut places = Vec::new();
    for file in view.observations.files.iter() {
        let (Some((first, last)), Some(rows)) = (file.event_time, file.rows) else { continue };
        let step = Duration::from_millis(last.since(first).as_millis().try_into().unwrap_or(u64::MAX)) / PLACES;
        places.extend((0..PLACES).map(|place| (first + step * place, rows / u64::from(PLACES))));
    }
    places.sort_unstable();
    // Homes send about as much as each other.
    let n_all = view.complete.len().max(n_homes).max(1) as u64;
    let share = if n_homes == 0 { n_all } else { n_homes as u64 };
    let enough = rows_at_once.saturating_mul(n_all) / share;
    let (mut windows, mut from, mut rows) = (Vec::new(), span.from, 0);
    for (at, more) in places {
        if rows >= enough && at > from && at < span.to {
            windows.push(Span { from, to: at });
            (from, rows) = (at, 0);
        }
        if at >= span.from {
            rows += more;
        }
    }
    windows.push(Span { from, to: span.to });
    windows
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use carebed_contract::time::Timestamp;
    use carebed_pipeline::view::{DataFile, TableView};

    use super::*;

    #[test]
    fn windows_follow_each_other_and_hold_about_as_many_rows() {
        let at = |hour: i64| Timestamp::from_millis(hour * 3_600_000);
        let file = |from: i64, to: i64, rows: u64| {
            Arc::new(DataFile {
                path: format!("{from}").into(),
                size: 1,
                rows: Some(rows),
                day: None,
                event_time: Some((at(from), at(to))),
                home: None,
                bed: None,
                part: None,
                written: Timestamp::MIN,
            })
        };
        // One day with as many rows as ten others, and a few rows of a clock that stood in 1970.
        let mut files: Vec<_> = (0..10).map(|day| file(480_000 + day * 24, 480_000 + day * 24 + 24, 160)).collect();
        files.extend([file(480_240, 480_264, 1_600), file(0, 1, 16)]);
        let observations = TableView { files: files.into(), ..TableView::default() };
        let view = View { observations, ..View::default() };
        let all = Span { from: Timestamp::MIN, to: Timestamp::MAX };
        let cut = |span: Span, n_homes, rows| windows(&view, span, n_homes, rows);
        assert_eq!(cut(all, 0, 10_000), [all]);
        let some = cut(all, 0, 800);
        assert_eq!(some.len(), 4, "{some:?}");
        assert!(some.windows(2).all(|pair| pair[0].to == pair[1].from) && some[0].from == all.from, "{some:?}");
        assert_eq!(some.last().unwrap().to, all.to);
        let day = Span { from: at(480_241), to: at(480_250) };
        let some = cut(day, 0, 100);
        assert!(some.len() == 6 && some[0].from == day.from && some[5].to == day.to, "{some:?}");
        assert!(some.iter().all(|window| window.from < window.to), "{some:?}");
    }
}
