//! Modbus TCP: one connection, used by one task.
//!
//! tokio-modbus matches transaction and unit of every answer, but only asserts its length; so the answer is taken as it
//! came and must have exactly the asked count. After a timeout or anything that is no answer the connection is dropped: a
//! late answer dies with it.

use carebed_device_profiles::modbus::{Function, Reject, Request};
use tokio_modbus::client::{Client as _, Context, tcp};
use tokio_modbus::prelude::{Slave, SlaveContext as _};

use super::address::{Address, Host};
use super::line::{LineError, Patience, Reopen, connect};
use super::polled::NoAnswer;
use super::rtu::Ask;

pub(super) struct ModbusTcp {
    host: Host,
    connection: Option<Context>,
    reopen: Reopen,
    patience: Patience,
}

impl ModbusTcp {
    pub(super) fn new(host: Host) -> Self {
        Self { host, connection: None, reopen: Reopen::new(), patience: Patience::default() }
    }

    pub(super) fn open_at_once(&mut self) {
        self.reopen.at_once();
    }

    /// Connects where there is no connection.
    pub(super) async fn open(&mut self) -> Result<(), NoAnswer> {
        if self.connection.is_none() {
            self.connection = Some(self.connect().await?);
        }
        Ok(())
    }

    pub(super) async fn ask(&mut self, ask: Ask) -> Result<Vec<u8>, NoAnswer> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let answer = exchange(&mut connection, &mut self.patience, ask).await;
        match answer {
            Ok(_) | Err(NoAnswer::Rejected(Reject::Exception(_))) => {
                self.connection = Some(connection);
                self.reopen.worked();
            }
            // One unit behind this address is dead. The others shall not wait for it.
            Err(NoAnswer::Timeout(_)) => self.reopen.at_once(),
            Err(_) => {}
        }
        answer
    }

    async fn connect(&mut self) -> Result<Context, LineError> {
        let address = || Address::ModbusTcp(self.host.clone());
        if !self.reopen.may() {
            return Err(LineError::Waiting(address()));
        }
        let connected = connect(&self.host).await;
        self.reopen.tried();
        match connected {
            Ok(stream) => Ok(tcp::attach(stream)),
            Err(source) => Err(LineError::Open { address: address(), source }),
        }
    }
}

async fn exchange(connection: &mut Context, patience: &mut Patience, ask: Ask) -> Result<Vec<u8>, NoAnswer> {
    use tokio_modbus::{Request as Wire, Response};
    let Ask { unit, request, timeout: limit } = ask;
    connection.set_slave(Slave(unit));
    let wire = match request {
        Request::Read { function, address, count } => match function {
            Function::ReadCoils => Wire::ReadCoils(address, count),
            Function::ReadDiscreteInputs => Wire::ReadDiscreteInputs(address, count),
            Function::ReadHoldingRegisters => Wire::ReadHoldingRegisters(address, count),
            Function::ReadInputRegisters => Wire::ReadInputRegisters(address, count),
        },
        Request::WriteCoil { address, value } => Wire::WriteSingleCoil(address, value),
        Request::WriteRegister { address, value } => Wire::WriteSingleRegister(address, value),
    };
    let response = match patience.wait(limit, connection.call(wire)).await {
        None => return Err(NoAnswer::Timeout(limit)),
        Some(Err(error)) => return Err(NoAnswer::Broken(error)),
        Some(Ok(Err(exception))) => return Err(Reject::Exception(exception.into()).into()),
        Some(Ok(Ok(response))) => response,
    };
    // Back to the bytes as they stood on the wire, so that there is one judge of answers for all links.
    let (code, data): (u8, Vec<u8>) = match response {
        Response::ReadCoils(bits) => (1, pack(&bits)),
        Response::ReadDiscreteInputs(bits) => (2, pack(&bits)),
        Response::ReadHoldingRegisters(words) => (3, words.into_iter().flat_map(u16::to_be_bytes).collect()),
        Response::ReadInputRegisters(words) => (4, words.into_iter().flat_map(u16::to_be_bytes).collect()),
        Response::WriteSingleCoil(address, value) => {
            let pdu = Request::WriteCoil { address, value }.pdu();
            return Ok(request.answer(&pdu)?.to_vec());
        }
        Response::WriteSingleRegister(address, value) => {
            let pdu = Request::WriteRegister { address, value }.pdu();
            return Ok(request.answer(&pdu)?.to_vec());
        }
        other => return Err(Reject::Function { asked: 0, answered: other.function_code().value() }.into()),
    };
    let length = u8::try_from(data.len()).map_err(|_| Reject::Length { expected: 0, found: data.len() })?;
    let pdu: Vec<u8> = [code, length].into_iter().chain(data).collect();
    Ok(request.answer(&pdu)?.to_vec())
}

fn pack(bits: &[bool]) -> Vec<u8> {
    bits.chunks(8).map(|byte| byte.iter().rev().fold(0, |packed, bit| packed << 1 | u8::from(*bit))).collect()
}
