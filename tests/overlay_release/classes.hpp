// Classes as a release compiles them, written after the facts of overlay files, not after the declarations of the
// runtime: those of the PXD, of events and of files, and some of other detectors with everything that ROOT can store.

#pragma once

#include <TObject.h>

#include <map>
#include <string>
#include <vector>

namespace Belle2 {

template <class BASE> class RelationsInterface : public BASE {
public:
  RelationsInterface() : BASE(), m_cacheDataStoreEntry(nullptr), m_cacheArrayIndex(-1) {}

private:
  mutable TObject* m_cacheDataStoreEntry; //!
  mutable int m_cacheArrayIndex;          //!
  ClassDefOverride(RelationsInterface, 0)
};

class DigitBase : public RelationsInterface<TObject> {
  ClassDefOverride(DigitBase, 2)
};

class PXDDigit : public DigitBase {
public:
  unsigned short m_sensorID = 0;
  unsigned short m_uCellID = 0;
  unsigned short m_vCellID = 0;
  unsigned short m_charge = 0;
  ClassDefOverride(PXDDigit, 5)
};

class EventMetaData : public TObject {
public:
  unsigned int m_event = 0;
  int m_run = 0;
  int m_subrun = 0;
  int m_experiment = 0;
  int m_production = 0;
  unsigned long long m_time = 0;
  std::string m_parentLfn;
  double m_generatedWeight = 1;
  unsigned int m_errorFlag = 0;
  ClassDefOverride(EventMetaData, 4)
};

class FileMetaData : public TObject {
public:
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
  ClassDefOverride(FileMetaData, 11)
};

// Other detectors: an array of numbers, one of vectors and nested objects, a single object, and one with a pointer.
class CDCHit : public DigitBase {
public:
  unsigned short m_wire = 0;
  short m_tdc = 0;
  float m_charge = 0;
  ClassDefOverride(CDCHit, 7)
};

class Waveform {
public:
  std::vector<int> m_samples;
  double m_pedestal = 0;
  virtual ~Waveform() {}
  ClassDef(Waveform, 1)
};

class ECLDsp : public DigitBase {
public:
  int m_cell = 0;
  Waveform m_waveform;
  std::map<std::string, double> m_fit;
  ClassDefOverride(ECLDsp, 3)
};

class Trigger : public TObject {
public:
  std::string m_name;
  unsigned int m_words[10] = {};
  Waveform* m_waveform = nullptr;
  ~Trigger() override { delete m_waveform; }
  ClassDefOverride(Trigger, 2)
};

class BackgroundMetaData : public TObject {
public:
  int m_type = 0;
  ClassDefOverride(BackgroundMetaData, 1)
};

} // namespace Belle2
