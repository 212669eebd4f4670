// The classes of basf2 that the module meets, as the interpreter of a real ROOT needs them to fill a real
// TClonesArray. What basf2 refuses, or answers with an error in its log, throws here. PXDDigit and EventMetaData are
// those of overlay files, because a process can have only one class of a name.

#include <TClonesArray.h>
#include <TObject.h>

#include <map>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace Belle2 {

class BackgroundInfo : public TObject {
public:
  void setExtensionName(const std::string& name) { m_extensionName = name; }
  const std::string& getExtensionName() const { return m_extensionName; }
  static TClass* Class() { return TClass::GetClass("Belle2::BackgroundInfo"); }
  TClass* IsA() const override { return Class(); }

private:
  std::string m_extensionName = "_beamBG";
};

class DataStore {
public:
  enum EDurability { c_Event = 0, c_Persistent = 1 };
  enum EStoreFlags { c_WriteOut = 0, c_DontWriteOut = 1, c_ErrorIfAlreadyRegistered = 2 };
  enum Phase { c_Building, c_Initialize, c_Processing };

  struct Entry {
    TClass* objectClass;
    bool isArray;
    int flags;
    TObject* object;  // owned, kept from event to event
    bool isValid;
  };

  static DataStore& Instance() { static DataStore store; return store; }
  Phase phase = c_Building;

  void reset() {
    for (auto& each : m_entries) delete each.second.object;
    m_entries.clear();
    phase = c_Building;
  }

  // The digits of an event, as one process streams them to the next: four numbers each.
  std::vector<std::string> listArrays() const {
    std::vector<std::string> names;
    for (const auto& each : m_entries)
      if (each.second.isArray && each.first.second == c_Event) names.push_back(each.first.first);
    return names;
  }

  std::vector<unsigned short> packDigits(const std::string& name) {
    std::vector<unsigned short> values;
    const auto& array = *static_cast<TClonesArray*>(usable(name, c_Event).object);
    for (int i = 0; i < array.GetEntriesFast(); ++i) {
      const auto& digit = static_cast<const PXDDigit&>(*array.At(i));
      for (unsigned short value :
           {digit.getSensorID().getID(), digit.getUCellID(), digit.getVCellID(), digit.getCharge()})
        values.push_back(value);
    }
    return values;
  }

  void unpackDigits(const std::string& name, const unsigned short* values, int n) {
    Entry& entry = usable(name, c_Event);
    entry.isValid = true;
    auto& array = *static_cast<TClonesArray*>(entry.object);
    for (int i = 0; i < n; i += 4)
      new (array[i / 4]) PXDDigit(VxdID(values[i]), values[i + 1], values[i + 2], values[i + 3]);
  }

  void invalidateEvent() {
    for (auto& each : m_entries) {
      if (each.first.second != c_Event) continue;
      each.second.isValid = false;
      if (each.second.isArray) static_cast<TClonesArray*>(each.second.object)->Delete();
    }
  }

  bool registerEntry(const std::string& name, int durability, TClass* objectClass, bool isArray, int flags) {
    if (phase != c_Initialize) throw std::runtime_error("registered outside of initialize: " + name);
    if (!objectClass) throw std::runtime_error("registered without a class: " + name);
    auto found = m_entries.find({name, durability});
    if (found != m_entries.end()) {
      const Entry& entry = found->second;
      if (flags & c_ErrorIfAlreadyRegistered) throw std::runtime_error("registered before: " + name);
      if (entry.objectClass != objectClass || entry.isArray != isArray || entry.flags != (flags & c_DontWriteOut))
        throw std::runtime_error("registered before in another way: " + name);
      return true;
    }
    TObject* object = isArray ? new TClonesArray(objectClass) : static_cast<TObject*>(objectClass->New());
    m_entries[{name, durability}] = Entry{objectClass, isArray, flags & c_DontWriteOut, object, false};
    return true;
  }

  Entry* find(const std::string& name, int durability) {
    auto found = m_entries.find({name, durability});
    return found == m_entries.end() ? nullptr : &found->second;
  }

  Entry& usable(const std::string& name, int durability) {
    Entry* entry = find(name, durability);
    if (!entry) throw std::runtime_error("not registered: " + name);
    if (durability == c_Event && phase != c_Processing && name != "EventMetaData")
      throw std::runtime_error("used outside of events: " + name);
    return *entry;
  }

private:
  std::map<std::pair<std::string, int>, Entry> m_entries;
};

class PyStoreArray {
public:
  PyStoreArray(TClass* objectClass, const std::string& name, DataStore::EDurability durability = DataStore::c_Event)
    : m_class(objectClass), m_name(name), m_durability(durability) {}
  bool registerInDataStore(DataStore::EStoreFlags flags = DataStore::c_WriteOut) {
    return DataStore::Instance().registerEntry(m_name, m_durability, m_class, true, flags);
  }
  bool isRequired() const { return required(m_name, m_durability); }
  bool isValid() const {
    DataStore::Entry* entry = DataStore::Instance().find(m_name, m_durability);
    return entry && entry->isValid;
  }
  TClonesArray* getPtr() {
    DataStore::Entry& entry = DataStore::Instance().usable(m_name, m_durability);
    entry.isValid = true;
    return static_cast<TClonesArray*>(entry.object);
  }
  TObject* appendNew() {
    TClonesArray* array = getPtr();
    return array->ConstructedAt(array->GetEntriesFast());
  }
  // What fillArray of newer releases, which is Python, calls.
  void append(const unsigned short* sensorID, const unsigned short* uCellID, const unsigned short* vCellID,
              const unsigned short* charge, int n) {
    TClonesArray& array = *getPtr();
    for (int i = 0; i < n; ++i)
      new (array[array.GetEntriesFast()]) PXDDigit(VxdID(sensorID[i]), uCellID[i], vCellID[i], charge[i]);
  }
  int getEntries() { return getPtr()->GetEntriesFast(); }
  TObject* operator[](int i) { return getPtr()->At(i); }

  static bool required(const std::string& name, int durability) {
    if (DataStore::Instance().phase != DataStore::c_Initialize)
      throw std::runtime_error("required outside of initialize: " + name);
    if (!DataStore::Instance().find(name, durability)) throw std::runtime_error("required but not registered: " + name);
    return true;
  }

private:
  TClass* m_class;
  std::string m_name;
  DataStore::EDurability m_durability;
};

class PyStoreObj {
public:
  PyStoreObj(const std::string& name, DataStore::EDurability durability = DataStore::c_Event)
    : m_class(TClass::GetClass(("Belle2::" + name).c_str())), m_name(name), m_durability(durability) {}
  bool registerInDataStore(DataStore::EStoreFlags flags = DataStore::c_WriteOut) {
    return DataStore::Instance().registerEntry(m_name, m_durability, m_class, false, flags);
  }
  bool isRequired() const { return PyStoreArray::required(m_name, m_durability); }
  bool isValid() const {
    DataStore::Entry* entry = DataStore::Instance().find(m_name, m_durability);
    return entry && entry->isValid;
  }
  bool create() { DataStore::Instance().usable(m_name, m_durability).isValid = true; return true; }
  TObject* obj() {
    DataStore::Entry& entry = DataStore::Instance().usable(m_name, m_durability);
    if (!entry.isValid) throw std::runtime_error("there is none: " + m_name);
    return entry.object;
  }

private:
  TClass* m_class;
  std::string m_name;
  DataStore::EDurability m_durability;
};

class DBStoreEntry {
public:
  enum EPayloadType { c_RawFile, c_Object, c_Array };
};

class DBAccessorBase {
public:
  DBAccessorBase(DBStoreEntry::EPayloadType type, const std::string& name, bool isRequired) : m_name(name) {
    if (DataStore::Instance().phase != DataStore::c_Initialize)
      throw std::runtime_error("a payload is asked for outside of initialize: " + name);
    if (type != DBStoreEntry::c_RawFile) throw std::runtime_error("the payload is a raw file: " + name);
    if (isRequired && !files().count(name)) throw std::runtime_error("no global tag has the payload " + name);
  }
  // Empty for a payload that no global tag has, and before the module that sets the event's numbers was initialised.
  std::string getFilename() const {
    DataStore::Entry* event = DataStore::Instance().find("EventMetaData", DataStore::c_Event);
    auto found = files().find(m_name);
    return event && event->isValid && found != files().end() ? found->second : "";
  }
  static std::map<std::string, std::string>& files() { static std::map<std::string, std::string> known; return known; }

private:
  std::string m_name;
};

}  // namespace Belle2
