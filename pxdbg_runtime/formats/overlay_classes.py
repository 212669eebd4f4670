"""The classes of basf2 in overlay files: names, versions and members, and what fills their objects.

ROOT goes by class name, version and member names when it reads. Inside a release its own classes are used; elsewhere
ROOT's interpreter compiles these. The versions were seen in public states of basf2 up to 2026-02, `EventMetaData`'s in
one of 2020: see docs/overlay-files.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pxdbg_runtime.digits import COLUMN_DTYPES
from pxdbg_runtime.errors import BrokenPackageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import ModuleType

    from pxdbg_runtime.digits import Digits

__all__ = [
    "CLASS_VERSIONS",
    "DIGITS",
    "DIGIT_CLASS",
    "DIGIT_MEMBERS",
    "EVENT_CLASS",
    "EVENT_META_DATA",
    "FILE_CLASS",
    "FILE_META_DATA",
    "PERSISTENT",
    "TREE",
    "build_array",
    "compile_classes",
    "create_object",
    "set_members",
]

TREE: Final = "tree"
"""Name of the tree with an entry an event."""
PERSISTENT: Final = "persistent"
"""Name of the tree with one entry that describes the file."""
DIGITS: Final = "PXDDigits"
EVENT_META_DATA: Final = "EventMetaData"
FILE_META_DATA: Final = "FileMetaData"
DIGIT_CLASS: Final = "Belle2::PXDDigit"
EVENT_CLASS: Final = "Belle2::EventMetaData"
FILE_CLASS: Final = "Belle2::FileMetaData"
CLASS_VERSIONS: Final = {DIGIT_CLASS: 5, EVENT_CLASS: 4, FILE_CLASS: 11}
DIGIT_MEMBERS: Final = {
    "sensor_id": "m_sensorID",
    "u_cell": "m_uCellID",
    "v_cell": "m_vCellID",
    "charge": "m_charge",
}
"""Members of `DIGIT_CLASS`, all unsigned short, by the columns of `Digits`."""

_CLASSES: Final = f"""
#include <TObject.h>
#include <map>
#include <string>
#include <vector>
namespace Belle2 {{
  class VxdID {{
  public:
    VxdID(unsigned short id = 0) : m_id(id) {{}}
    unsigned short getID() const {{ return m_id; }}
  private:
    unsigned short m_id;
  }};

  template <class BASE> class RelationsInterface : public BASE {{
  private:
    void* m_entry = nullptr;  //!
    int m_index = -1;  //!
    ClassDefInline(RelationsInterface, 0)
  }};

  class DigitBase : public RelationsInterface<TObject> {{
    ClassDefInline(DigitBase, 2)
  }};

  class PXDDigit : public DigitBase {{
  public:
    PXDDigit() {{}}
    PXDDigit(VxdID sensorID, unsigned short uCellID, unsigned short vCellID, unsigned short charge)
      : m_sensorID(sensorID.getID()), m_uCellID(uCellID), m_vCellID(vCellID), m_charge(charge) {{}}
    VxdID getSensorID() const {{ return m_sensorID; }}
    unsigned short getUCellID() const {{ return m_uCellID; }}
    unsigned short getVCellID() const {{ return m_vCellID; }}
    unsigned short getCharge() const {{ return m_charge; }}
  private:
    unsigned short m_sensorID = 0;
    unsigned short m_uCellID = 0;
    unsigned short m_vCellID = 0;
    unsigned short m_charge = 0;
    ClassDefInline(PXDDigit, {CLASS_VERSIONS[DIGIT_CLASS]})
  }};

  class EventMetaData : public TObject {{
  public:
    unsigned int getEvent() const {{ return m_event; }}
    int getRun() const {{ return m_run; }}
    int getExperiment() const {{ return m_experiment; }}
  private:
    unsigned int m_event = 0;
    int m_run = 0;
    int m_subrun = 0;
    int m_experiment = 0;
    int m_production = 0;
    unsigned long long m_time = 0;
    std::string m_parentLfn;
    double m_generatedWeight = 1;
    unsigned int m_errorFlag = 0;
    ClassDefInline(EventMetaData, {CLASS_VERSIONS[EVENT_CLASS]})
  }};

  class FileMetaData : public TObject {{
    std::string m_lfn;
    unsigned int m_nEvents = 0;
    unsigned int m_nFullEvents = 0;
    int m_experimentLow = 0;
    int m_runLow = 0;
    unsigned int m_eventLow = 0;
    int m_experimentHigh = 0;
    int m_runHigh = 0;
    unsigned int m_eventHigh = 0;
    std::vector<std::string> m_parentLfns;
    std::string m_date;
    std::string m_site;
    std::string m_user;
    std::string m_randomSeed;
    std::string m_release;
    std::string m_steering;
    bool m_isMC = true;
    unsigned int m_mcEvents = 0;
    std::string m_databaseGlobalTag;
    std::map<std::string, std::string> m_dataDescription;
    ClassDefInline(FileMetaData, {CLASS_VERSIONS[FILE_CLASS]})
  }};
}}
"""
_HELPERS: Final = """
#include <TClass.h>
#include <TClonesArray.h>
#include <TDataMember.h>
#include <TDataType.h>
#include <TRealData.h>
#include <map>
#include <stdexcept>
#include <string>
namespace pxdbg_overlay {
  // Members are found through the dictionary: those of a release are private, and its headers need not be here.
  char* find_member(TObject& object, const char* name, const char* type, EDataType& number_type)
  {
    TClass* cl = object.IsA();
    TRealData* data = cl->GetRealData(name);
    if (!data && !cl->GetListOfRealData()) { cl->BuildRealData(); data = cl->GetRealData(name); }
    TDataMember* member = data ? data->GetDataMember() : nullptr;
    std::string expected = type;
    number_type = member && member->GetDataType() ? EDataType(member->GetDataType()->GetType()) : kNoType_t;
    if (!member || (expected.empty() ? number_type == kNoType_t
                    : std::string(member->GetTrueTypeName()).find(expected) == std::string::npos))
      throw std::runtime_error(std::string(cl->GetName()) + " has no member " + name + " of the expected type");
    return reinterpret_cast<char*>(&object) + data->GetThisOffset();
  }

  void set_number(TObject& object, const char* name, double value)
  {
    EDataType type;
    char* place = find_member(object, name, "", type);
    switch (type) {
      case kInt_t: *reinterpret_cast<int*>(place) = value; break;
      case kUInt_t: *reinterpret_cast<unsigned int*>(place) = value; break;
      case kBool_t: *reinterpret_cast<bool*>(place) = value; break;
      default: throw std::runtime_error(std::string(name) + " has a type that is not known here");
    }
  }

  void set_text(TObject& object, const char* name, const std::string& value)
  {
    EDataType type;
    *reinterpret_cast<std::string*>(find_member(object, name, "string", type)) = value;
  }

  void set_entry(TObject& object, const char* name, const std::string& key, const std::string& value)
  {
    EDataType type;
    using Map = std::map<std::string, std::string>;
    (*reinterpret_cast<Map*>(find_member(object, name, "map<string,string", type)))[key] = value;
  }

  struct DigitFiller {
    explicit DigitFiller(TClonesArray& array) : array(array) {
      TObject* digit = static_cast<TObject*>(array.GetClass()->New());
      const char* names[] = {"m_sensorID", "m_uCellID", "m_vCellID", "m_charge"};
      for (int i = 0; i < 4; ++i) {
        EDataType type;
        offsets[i] = find_member(*digit, names[i], "", type) - reinterpret_cast<char*>(digit);
        if (type != kUShort_t) throw std::runtime_error("PXDDigit does not hold unsigned shorts");
      }
      delete digit;
    }
    void fill(const unsigned short* sensor_id, const unsigned short* u_cell, const unsigned short* v_cell,
              const unsigned char* charge, int n_digits)
    {
      array.Clear();
      array.ExpandCreateFast(n_digits);
      for (int i = 0; i < n_digits; ++i) {
        char* digit = reinterpret_cast<char*>(array.UncheckedAt(i));
        *reinterpret_cast<unsigned short*>(digit + offsets[0]) = sensor_id[i];
        *reinterpret_cast<unsigned short*>(digit + offsets[1]) = u_cell[i];
        *reinterpret_cast<unsigned short*>(digit + offsets[2]) = v_cell[i];
        *reinterpret_cast<unsigned short*>(digit + offsets[3]) = charge[i];
      }
    }
    TClonesArray& array;
    long offsets[4];
  };
}
"""


def compile_classes(root: ModuleType) -> None:
    """Compile the classes, unless the process has them from a release, and the functions that fill their objects.

    Parameters
    ----------
    root : module
        From `import_root`.

    Raises
    ------
    BrokenPackageError
        If ROOT's interpreter does not compile them.
    """
    if hasattr(root, "pxdbg_overlay"):
        return
    source = _HELPERS if root.TClass.GetClass(DIGIT_CLASS) else _CLASSES + _HELPERS
    if not root.gInterpreter.Declare(source):
        message = "ROOT's interpreter does not compile what fills overlay files: install ROOT again, or another one."
        raise BrokenPackageError("ROOT", "root", message)


def build_array(root: ModuleType) -> tuple[Any, Callable[[Digits], None]]:
    """Build an array of `DIGIT_CLASS`, and the function that replaces its content with the digits of one event.

    Returns
    -------
    array : TClonesArray
    fill : callable
    """
    array = root.TClonesArray(DIGIT_CLASS)
    filler = root.pxdbg_overlay.DigitFiller(array)

    def fill(digits: Digits) -> None:
        if not len(digits):  # PyROOT makes no pointer of an empty array
            array.Clear()
            return
        columns = (np.ascontiguousarray(getattr(digits, name), dtype=COLUMN_DTYPES[name]) for name in DIGIT_MEMBERS)
        filler.fill(*columns, len(digits))

    return array, fill


def create_object(root: ModuleType, name: str) -> Any:  # noqa: ANN401  # of ROOT
    """Create an object of one of the classes, which Python owns."""
    return getattr(root.Belle2, name.removeprefix("Belle2::"))()


def set_members(root: ModuleType, target: Any, members: Mapping[str, float | str]) -> None:  # noqa: ANN401  # of ROOT
    """Set members of an object, numbers and texts, by their names.

    Raises
    ------
    RuntimeError
        If the class of a release has no such member.
    """
    for name, value in members.items():
        if isinstance(value, str):
            root.pxdbg_overlay.set_text(target, name, value)
        else:
            root.pxdbg_overlay.set_number(target, name, float(value))
