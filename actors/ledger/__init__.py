"""The actor Ledger owns the money of a program: caps, what is reserved, held and settled, and what was paid for."""

from actors.ledger.account import Account
from actors.ledger.approvals import CapAnswer
from actors.ledger.book import Book
from actors.ledger.config import LedgerConfig
from actors.ledger.entries import (
    AccountClosed,
    AccountOpened,
    CapChanged,
    CapRenewed,
    HeldUnderWay,
    MoneyHeld,
    MoneyReleased,
    MoneyReserved,
    MoneySettled,
    QuestionAnswered,
    QuestionAsked,
    TariffListed,
)
from actors.ledger.errors import (
    AlreadyPaid,
    JournalDown,
    JournalFailed,
    JournalUnreadable,
    KeyReused,
    PaidUnanswered,
    RiskExceeded,
    StillUnsettled,
)
from actors.ledger.keys import provider_key, scoped_key
from actors.ledger.ledger import Ledger
from actors.ledger.messages import (
    AnswerQuestion,
    BookCall,
    CloseAccount,
    Costing,
    GetHeld,
    GetStatement,
    MarkSent,
    MarkUnderWay,
    OpenAccount,
    Reservation,
    Reserve,
    Resolve,
    SetCap,
    Unsettled,
)
from actors.ledger.periods import Renewal
from actors.ledger.statement import CapPeriod, Statement
from runtime.persistence import JournalError

__all__ = [
    "Account",
    "AccountClosed",
    "AccountOpened",
    "AlreadyPaid",
    "AnswerQuestion",
    "Book",
    "BookCall",
    "CapAnswer",
    "CapChanged",
    "CapPeriod",
    "CapRenewed",
    "CloseAccount",
    "Costing",
    "GetHeld",
    "GetStatement",
    "HeldUnderWay",
    "JournalDown",
    "JournalError",
    "JournalFailed",
    "JournalUnreadable",
    "KeyReused",
    "Ledger",
    "LedgerConfig",
    "MarkSent",
    "MarkUnderWay",
    "MoneyHeld",
    "MoneyReleased",
    "MoneyReserved",
    "MoneySettled",
    "OpenAccount",
    "PaidUnanswered",
    "QuestionAnswered",
    "QuestionAsked",
    "Renewal",
    "Reservation",
    "Reserve",
    "Resolve",
    "RiskExceeded",
    "SetCap",
    "Statement",
    "StillUnsettled",
    "TariffListed",
    "Unsettled",
    "provider_key",
    "scoped_key",
]
