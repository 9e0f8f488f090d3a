//! Receives what a server responds to a statement.

use jiff::tz::TimeZone;
use mysql_common::constants::{CapabilityFlags, StatusFlags};
use mysql_common::io::ParseBuf;
use mysql_common::packets::{CommonOkPacket, OkPacket, OkPacketDeserializer, StmtPacket};

use super::binary::{BinaryColumn, Form};
use super::failure::{Failure, MAX_COLUMNS};
use super::login::Session;
use super::rows;
use super::types::Field;
use crate::batcher::MAX_ROW;
use crate::printed::{Decoder, PrintedColumn};
use crate::{Column, Results};

/// How rows are encoded, and which of their values are returned.
pub(super) enum Protocol {
    /// As texts.
    Text,
    /// As the database stores them; those that the server prints.
    Shown,
    /// As the database stores them; exact ones.
    Exact {
        /// The session's time zone, if it is known and needed.
        zone: Option<TimeZone>,
    },
}

/// Receives the results of a statement. Returns whether it was refused, since it would read a local file.
pub(super) fn receive_results(
    session: &mut Session,
    protocol: &Protocol,
    results: &mut dyn Results,
) -> Result<bool, Failure> {
    let mut is_refused = false;
    loop {
        let packet = session.packets.receive()?;
        let has_more = match packet {
            [0x00, ..] => {
                let ok = parse_ok(packet, session.capabilities)?;
                results.changed(Some(ok.affected_rows()));
                ok.status_flags().contains(StatusFlags::SERVER_MORE_RESULTS_EXISTS)
            }
            [0xff, ..] if is_refused => return Ok(true),
            [0xff, ..] => return Err(Failure::from_packet(packet)),
            [0xfb, ..] => {
                // An empty file; the server's response follows.
                session.packets.send(&[])?;
                is_refused = true;
                continue;
            }
            _ => {
                let count = ParseBuf(packet).checked_eat_lenenc_int();
                let count = count.ok_or(Failure::Protocol("a malformed number of columns"))?;
                if count > MAX_COLUMNS {
                    return Err(Failure::TooManyColumns(count));
                }
                let fields = receive_fields(session, count)?;
                receive_rows(session, fields, protocol, results)?
            }
        };
        if !has_more {
            return Ok(is_refused);
        }
    }
}

/// Receives the rows of a result set. Returns whether another result follows.
fn receive_rows(
    session: &mut Session,
    fields: Vec<Field>,
    protocol: &Protocol,
    results: &mut dyn Results,
) -> Result<bool, Failure> {
    let encodings: Vec<_> = fields.iter().map(|field| (field.form(), field.is_zoned())).collect();
    let (columns, decoders): (Vec<Column>, Vec<Decoder>) = fields.into_iter().map(Field::column).unzip();
    results.result_set(&columns)?;
    let packets = &mut session.packets;
    match protocol {
        Protocol::Text => {
            let columns: Vec<_> = decoders.into_iter().map(|it| (PrintedColumn::default(), it)).collect();
            rows::receive_rows(packets, columns, results)
        }
        Protocol::Shown => {
            let column = |((form, _), decoder): (_, _)| BinaryColumn::new(form, decoder, None);
            let columns: Vec<_> = encodings.into_iter().zip(decoders).map(column).collect();
            rows::receive_rows(packets, columns, results)
        }
        Protocol::Exact { zone } => {
            let column = |((form, is_zoned), decoder): ((Form, bool), _)| {
                BinaryColumn::new(form.exact(), decoder, zone.clone().filter(|_| is_zoned))
            };
            let columns: Vec<_> = encodings.into_iter().zip(decoders).map(column).collect();
            rows::receive_rows(packets, columns, results)
        }
    }
}

pub(super) fn parse_ok(packet: &[u8], capabilities: CapabilityFlags) -> Result<OkPacket<'_>, Failure> {
    let ok: OkPacketDeserializer<'_, CommonOkPacket> =
        ParseBuf(packet).parse(capabilities).map_err(|_| Failure::Protocol("a malformed OK packet"))?;
    Ok(ok.into_inner())
}

/// The descriptions of so many columns, and the packet that ends them.
fn receive_fields(session: &mut Session, count: u64) -> Result<Vec<Field>, Failure> {
    let mut fields = Vec::new();
    let mut size = 0;
    for _ in 0..count {
        let packet = session.packets.receive()?;
        if let [0xff, ..] = packet {
            return Err(Failure::from_packet(packet));
        }
        let field = Field::parse(packet).ok_or(Failure::Protocol("a malformed column"))?;
        size += field.name().len();
        if size > MAX_ROW {
            return Err(Failure::NamesTooLong);
        }
        fields.push(field);
    }
    if count > 0 {
        match session.packets.receive()? {
            [0xfe, ..] => {}
            packet @ [0xff, ..] => return Err(Failure::from_packet(packet)),
            _ => return Err(Failure::Protocol("no end of the columns")),
        }
    }
    Ok(fields)
}

/// A prepared statement.
pub(super) struct Prepared {
    pub(super) id: u32,
    pub(super) parameters: u16,
    pub(super) fields: Vec<Field>,
}

pub(super) fn receive_prepared(session: &mut Session) -> Result<Prepared, Failure> {
    let packet = session.packets.receive()?;
    if let [0xff, ..] = packet {
        return Err(Failure::from_packet(packet));
    }
    let prepared: StmtPacket =
        ParseBuf(packet).parse(()).map_err(|_| Failure::Protocol("a malformed prepared statement"))?;
    receive_fields(session, prepared.num_params().into())?;
    let fields = receive_fields(session, prepared.num_columns().into())?;
    Ok(Prepared { id: prepared.statement_id(), parameters: prepared.num_params(), fields })
}
