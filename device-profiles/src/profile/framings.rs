//! How frames look: `[[framing]]`.

use toml::Spanned;

use crate::document::Fields;
use crate::framing::{Check, Checksum, Extent, FRAME_LENGTH_MAX, Framing, Order, Place, Width};
use crate::hex::Hex;

pub(crate) fn read(mut f: Fields<'_>) -> Option<Spanned<Framing>> {
    let name = f.take_or("name", String::new());
    let (start, preamble) = (bytes(f.take("start")), bytes(f.take("preamble")));
    let (length, fixed_length) = (f.table("length"), f.take::<usize>("fixed_length"));
    let (until, length_max) = (f.take::<Hex>("until"), f.take::<usize>("length_max"));
    let fixed = f.tables("fixed").into_iter().filter_map(fixed).collect();
    let checks: Vec<Check> = f.tables("checks").into_iter().filter_map(check).collect();
    let (key, address) = (f.table("key").and_then(place), f.table("address").and_then(place));
    let data = f.table("data").map(data_of);
    let (plus, order) = (f.take_or("plus", 0_u8), f.take_or("order", Order::Abcd));
    let length = length.map(extent);
    let ways = usize::from(length.is_some()) + usize::from(fixed_length.is_some()) + usize::from(until.is_some());
    if ways != 1 {
        let message = "[[framing]] must say in exactly one way where a frame ends";
        f.tell(f.span(), message, "give one of length = { at = …, … }, fixed_length = …, until = \"…\"");
    }
    if start.is_empty() && until.is_none() {
        f.tell(f.span(), "[[framing]] lacks start", "add start = \"…\", the first bytes of every frame");
    }
    let tail = until.as_ref().map_or(0, |until| until.get_ref().0.len());
    let (data_from, data_after) = data.unwrap_or(Some((start.len(), tail)))?;
    let until_span = until.as_ref().map(Spanned::span);
    let extent = match (length, fixed_length, until) {
        (Some(length), _, _) => length?,
        (_, Some(fixed), _) => Extent::Fixed(fixed.into_inner()),
        (_, _, Some(until)) => Extent::Until(until.into_inner().0),
        (None, None, None) => return None,
    };
    if matches!(&extent, Extent::Until(end) if end.is_empty()) {
        f.tell(until_span.unwrap_or(f.span()), "until is empty", "give the bytes that end a frame, as in \"0A\"");
    }
    let length_max = match (length_max, &extent) {
        (_, Extent::Fixed(length)) => *length,
        (Some(length), _) => {
            if !(1..=FRAME_LENGTH_MAX).contains(length.get_ref()) {
                let message = format!("length_max {} is not between 1 and {FRAME_LENGTH_MAX}", length.get_ref());
                f.tell(length.span(), message, "give the length of the longest frame that the device sends");
            }
            length.into_inner()
        }
        (None, _) => {
            f.tell(f.span(), "[[framing]] lacks length_max", "add length_max = 64, the longest frame of the device");
            FRAME_LENGTH_MAX
        }
    };
    if matches!(extent, Extent::Fixed(length) if length == 0 || length > FRAME_LENGTH_MAX || length < data_from + data_after)
    {
        f.tell(f.span(), "fixed_length does not hold the data", "correct fixed_length or data");
    }
    let framing = Framing {
        name,
        start,
        preamble,
        extent,
        length_max,
        fixed,
        checks,
        key,
        address,
        data_from,
        data_after,
        plus,
        order,
    };
    Some(Spanned::new(f.span(), framing))
}

fn bytes(hex: Option<Spanned<Hex>>) -> Vec<u8> {
    hex.map_or_else(Vec::new, |hex| hex.into_inner().0)
}

fn extent(mut f: Fields<'_>) -> Option<Extent> {
    let (at, width, order) = (f.need::<u8>("at"), f.need("type"), f.take_or("order", Order::Abcd));
    let (add, empty) = (f.need::<u8>("add"), f.take::<u8>("empty"));
    Some(Extent::Field {
        at: at?.into_inner().into(),
        width: Spanned::<Width>::into_inner(width?),
        order,
        add: add?.into_inner().into(),
        empty: empty.map(|empty| empty.into_inner().into()),
    })
}

fn fixed(mut f: Fields<'_>) -> Option<(Place, Vec<u8>)> {
    let (at, bytes) = (f.need::<i8>("at"), f.need::<Hex>("bytes"));
    Some((at?.into_inner().into(), bytes?.into_inner().0))
}

fn check(mut f: Fields<'_>) -> Option<Check> {
    let (kind, at) = (f.need::<Checksum>("kind"), f.need::<i8>("at"));
    let (from, to) = (f.take_or("from", 0_i8), f.need::<i8>("to"));
    let order = f.take_or("order", Order::Dcba);
    let (kind, at, to) = (kind?.into_inner(), at?.into_inner().into(), to?.into_inner().into());
    Some(Check { kind, at, from: from.into(), to, order })
}

fn place(mut f: Fields<'_>) -> Option<(usize, usize)> {
    let (at, size) = (f.need::<u8>("at"), f.need::<u8>("size"));
    let size = size?;
    if !(1..=16).contains(size.get_ref()) {
        f.tell(size.span(), format!("size {} is not between 1 and 16", size.get_ref()), "correct the size");
    }
    Some((at?.into_inner().into(), size.into_inner().into()))
}

fn data_of(mut f: Fields<'_>) -> Option<(usize, usize)> {
    let (from, after) = (f.need::<u8>("from"), f.take_or("after", 0_u8));
    Some((from?.into_inner().into(), after.into()))
}
