"""The actor Ledger owns the money of a program: caps, what is reserved, held and settled, and what was paid for."""

from actors.ledger.account import Account
from actors.ledger.approvals import CapAnswer
from actors.ledger.book import Book
from actors.ledger.budget_lessee import BudgetLessee, MoreMoney
from actors.ledger.config import LedgerConfig
from actors.ledger.entries import (
    AccountClosed,
    AccountOpened,
    AccountPaused,
    AccountResumed,
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
from actors.ledger.home_ledger import home_ledger
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
    PauseAccount,
    Reservation,
    Reserve,
    Resolve,
    ResumeAccount,
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
    "AccountPaused",
    "AccountResumed",
    "AlreadyPaid",
    "AnswerQuestion",
    "Book",
    "BookCall",
    "BudgetLessee",
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
    "MoreMoney",
    "OpenAccount",
    "PaidUnanswered",
    "PauseAccount",
    "QuestionAnswered",
    "QuestionAsked",
    "Renewal",
    "Reservation",
    "Reserve",
    "Resolve",
    "ResumeAccount",
    "RiskExceeded",
    "SetCap",
    "Statement",
    "StillUnsettled",
    "TariffListed",
    "Unsettled",
    "home_ledger",
    "provider_key",
    "scoped_key",
]
