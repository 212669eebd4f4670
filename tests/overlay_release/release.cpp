// The part of a release that makes and reads overlay files, with compiled dictionaries.
//
// Reads lines of words with tabs between them: two files for what is printed and for errors, then one of these commands.
// Runs each in a fork of its own, and prints its status, that of waitpid.
//
//   make FILE EVENTS [CHARGE]    a complete overlay file: PXD and other detectors, further trees, folders and objects;
//                                its first digit has the charge, else 10
//   mix FILE                     a file for background mixing
//   overlay FILE EXPERIMENT RUN FIRST EVENTS DIGITS
//                                what BGOverlayInput does: its checks, its branches, its events; the digits go to DIGITS
//   others FILE                  the values of everything but the PXD's digits
//   describe FILE                FileMetaData and EventMetaData, and the checksums of the classes

#include "classes.hpp"

#include <TBranchElement.h>
#include <TClass.h>
#include <TClonesArray.h>
#include <TDirectory.h>
#include <TFile.h>
#include <TH1D.h>
#include <TKey.h>
#include <TMemFile.h>
#include <TNamed.h>
#include <TStreamerInfo.h>
#include <TTree.h>

#include <fstream>
#include <iostream>
#include <memory>
#include <sstream>
#include <stdexcept>

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

using namespace Belle2;

static void fill_detectors(TClonesArray& pxd, TClonesArray& cdc, TClonesArray& ecl, Trigger& trigger, int event)
{
  pxd.Delete();
  cdc.Delete();
  ecl.Delete();
  for (int i = 0; i < 5 + event % 3; ++i) {
    auto& digit = *static_cast<PXDDigit*>(pxd.ConstructedAt(i));
    digit.m_sensorID = 8480;
    digit.m_uCellID = event % 250;
    digit.m_vCellID = i;
    digit.m_charge = 10 + i;
  }
  for (int i = 0; i < event * 7 % 200; ++i) {
    auto& hit = *static_cast<CDCHit*>(cdc.ConstructedAt(i));
    hit.m_wire = 3 * i;
    hit.m_tdc = i - event;
    hit.m_charge = 0.1f * i;
  }
  for (int i = 0; i < event % 4; ++i) {
    auto& dsp = *static_cast<ECLDsp*>(ecl.ConstructedAt(i));
    dsp.m_cell = 100 + i;
    dsp.m_waveform.m_pedestal = 1.0 / (1 + event);
    dsp.m_waveform.m_samples.assign(i * 5 + event % 6, event);
    dsp.m_fit = {{"chi2", 0.5 * i}, {"time", -event}};
  }
  trigger.m_name = "event " + std::to_string(event);
  for (int i = 0; i < 10; ++i) trigger.m_words[i] = event << i;
  delete trigger.m_waveform;
  trigger.m_waveform = event % 2 ? new Waveform : nullptr;
  if (trigger.m_waveform) trigger.m_waveform->m_samples = {event, 2, 3};
}

static void make(const char* name, int n_events, int charge = 10)
{
  TFile file(name, "RECREATE", "overlay", 404);
  auto* tree = new TTree("tree", "tree");
  tree->SetAutoFlush(50);
  TClonesArray pxd("Belle2::PXDDigit"), cdc("Belle2::CDCHit"), ecl("Belle2::ECLDsp"), *ecl_unsplit = &ecl;
  Trigger trigger;
  EventMetaData event_meta_data;
  tree->Branch("EventMetaData", &event_meta_data, 32000, 99);
  tree->Branch("CDCHits", &cdc, 32000, 99);
  tree->Branch("PXDDigits", &pxd, 32000, 99);
  tree->Branch("PXDDigitsExtra", &pxd, 32000, 99);
  tree->Branch("PXDDigitsToCDCHits", &cdc, 32000, 99);
  tree->Branch("ECLDsps", &ecl, 32000, 99);
  tree->Branch("ECLDspsUnsplit", &ecl_unsplit, 32000, 0);
  tree->Branch("Trigger", &trigger, 32000, 99);
  tree->Branch("TriggerUnsplit", "Belle2::Trigger", &trigger, 32000, 0);
  for (int event = 0; event < n_events; ++event) {
    fill_detectors(pxd, cdc, ecl, trigger, event);
    if (event == 0) static_cast<PXDDigit*>(pxd[0])->m_charge = charge;
    event_meta_data.m_event = 1000 - event;
    event_meta_data.m_run = 4;
    event_meta_data.m_experiment = 12;
    tree->Fill();
  }
  auto* persistent = new TTree("persistent", "persistent");
  FileMetaData file_meta_data;
  file_meta_data.m_lfn = "/belle/overlay.root";
  file_meta_data.m_nEvents = file_meta_data.m_nFullEvents = n_events;
  file_meta_data.m_experimentLow = file_meta_data.m_experimentHigh = 12;
  file_meta_data.m_runLow = file_meta_data.m_runHigh = 4;
  file_meta_data.m_parentLfns = {"/belle/raw/1", "/belle/raw/2"};
  file_meta_data.m_isMC = false;
  file_meta_data.m_dataDescription = {{"campaign", "one"}};
  persistent->Branch("Trigger", &trigger, 32000, 99);
  persistent->Branch("FileMetaData", &file_meta_data, 32000, 99);
  persistent->Fill();
  TNamed("note", "kept").Write();
  Trigger().Write("lone_trigger");
  file.mkdir("monitor")->cd();
  TH1D histogram("charge", "charge", 10, 0, 10);
  histogram.Fill(3);
  histogram.Write();
  auto* folder_tree = new TTree("runs", "runs");
  int run = 4;
  folder_tree->Branch("run", &run);
  folder_tree->Fill();
  file.Write();
}

static void mix(const char* name)
{
  make(name, 2);
  TFile file(name, "UPDATE");
  auto* persistent = file.Get<TTree>("persistent");
  BackgroundMetaData meta_data;
  persistent->Branch("BackgroundMetaData", &meta_data)->Fill();
  file.Write("", TObject::kOverwrite);
}

static TTree& find_tree(TFile& file, const char* name)
{
  auto* tree = file.Get<TTree>(name);
  if (!tree) throw std::runtime_error(std::string("no tree ") + name);
  return *tree;
}

static void overlay(const char* name, int experiment, int run, Long64_t first, int n_events, const char* output)
{
  TFile file(name);
  TTree& persistent = find_tree(file, "persistent");
  if (persistent.GetEntries() != 1) throw std::runtime_error("persistent must have one entry");
  if (persistent.GetBranch("BackgroundMetaData")) throw std::runtime_error("a file for mixing");
  if (persistent.GetBranch("BackgroundInfo")) throw std::runtime_error("BackgroundInfo is there");
  FileMetaData file_meta_data, *file_meta_data_pointer = &file_meta_data;
  if (persistent.SetBranchAddress("FileMetaData", &file_meta_data_pointer) < 0) throw std::runtime_error("no FileMetaData");
  persistent.GetEntry(0);
  if (file_meta_data.m_experimentLow != experiment) throw std::runtime_error("another experiment");
  if (experiment > 0 && experiment < 1000 && file_meta_data.m_runLow != run) throw std::runtime_error("another run");
  TTree& tree = find_tree(file, "tree");
  std::map<std::string, std::unique_ptr<TClonesArray>> arrays;
  std::map<std::string, TClonesArray*> addresses;
  for (auto* each : *tree.GetListOfBranches()) {
    auto* branch = dynamic_cast<TBranchElement*>(each);
    if (!branch) continue;
    bool is_array = std::string(branch->GetClassName()) == "TClonesArray";
    std::string type = is_array ? branch->GetClonesName() : branch->GetClassName();
    if (!is_array || type.rfind("Belle2::", 0) != 0) continue;
    std::cout << branch->GetName() << "_beamBG " << type << "\n";
    arrays[branch->GetName()] = std::make_unique<TClonesArray>(type.c_str());
    addresses[branch->GetName()] = arrays[branch->GetName()].get();
    branch->SetAddress(&addresses[branch->GetName()]);
  }
  std::ofstream digits(output, std::ios::binary);
  for (int i = 0; i < n_events; ++i) {
    if (tree.GetEntry((first + i) % tree.GetEntries()) <= 0) throw std::runtime_error("an event cannot be read");
    TClonesArray& array = *addresses.at("PXDDigits");
    for (auto* each : array) {
      auto& digit = static_cast<PXDDigit&>(*each);
      unsigned short row[] = {static_cast<unsigned short>(i), digit.m_sensorID, digit.m_uCellID, digit.m_vCellID, digit.m_charge};
      digits.write(reinterpret_cast<char*>(row), sizeof row);
    }
  }
  tree.ResetBranchAddresses();
}

static void others(const char* name)
{
  TFile file(name);
  TTree& tree = find_tree(file, "tree");
  TClonesArray *cdc = nullptr, *ecl = nullptr, *unsplit = nullptr;
  Trigger *split_trigger = nullptr, *trigger = nullptr;
  EventMetaData* event = nullptr;
  tree.SetBranchAddress("CDCHits", &cdc);
  tree.SetBranchAddress("ECLDsps", &ecl);
  tree.SetBranchAddress("ECLDspsUnsplit", &unsplit);
  tree.SetBranchAddress("Trigger", &split_trigger);
  tree.SetBranchAddress("TriggerUnsplit", &trigger);
  tree.SetBranchAddress("EventMetaData", &event);
  for (Long64_t i = 0; i < tree.GetEntries(); ++i) {
    tree.GetEntry(i);
    std::cout << i << " " << event->m_experiment << " " << event->m_run << " " << event->m_event;
    for (auto* each : *cdc) {
      auto& hit = static_cast<CDCHit&>(*each);
      std::cout << " " << hit.m_wire << "," << hit.m_tdc << "," << hit.m_charge;
    }
    for (auto* array : {ecl, unsplit})
      for (auto* each : *array) {
        auto& dsp = static_cast<ECLDsp&>(*each);
        std::cout << " " << dsp.m_cell << "," << dsp.m_waveform.m_pedestal << "," << dsp.m_fit.at("time");
        for (int sample : dsp.m_waveform.m_samples) std::cout << "," << sample;
      }
    for (auto* each : {split_trigger, trigger}) {
      std::cout << " " << each->m_name << "," << each->m_words[9];
      if (each->m_waveform) std::cout << "," << each->m_waveform->m_samples.at(0);
    }
    std::cout << "\n";
  }
  TTree& persistent = find_tree(file, "persistent");
  Trigger* kept = nullptr;
  persistent.SetBranchAddress("Trigger", &kept);
  persistent.GetEntry(0);
  std::cout << "persistent " << kept->m_name << " " << file.Get<TNamed>("note")->GetTitle() << " "
            << file.Get<Trigger>("lone_trigger")->m_words[0] << " "
            << file.Get<TH1D>("monitor/charge")->GetBinContent(4) << " "
            << file.Get<TTree>("monitor/runs")->GetEntries() << "\n";
  for (auto* key : *file.GetListOfKeys())
    std::cout << key->GetName() << ";" << static_cast<TKey*>(key)->GetCycle() << "\n";
}

static void describe(const char* name)
{
  TFile file(name);
  TTree& persistent = find_tree(file, "persistent");
  FileMetaData* of_file = nullptr;
  persistent.SetBranchAddress("FileMetaData", &of_file);
  persistent.GetEntry(0);
  std::cout << "events " << of_file->m_nEvents << " " << of_file->m_nFullEvents << " " << of_file->m_mcEvents << "\n"
            << "low " << of_file->m_experimentLow << " " << of_file->m_runLow << " " << of_file->m_eventLow << "\n"
            << "high " << of_file->m_experimentHigh << " " << of_file->m_runHigh << " " << of_file->m_eventHigh << "\n"
            << "lfn " << of_file->m_lfn << "\nparents";
  for (const auto& parent : of_file->m_parentLfns) std::cout << " " << parent;
  std::cout << "\nseed " << of_file->m_randomSeed << "\nrelease " << of_file->m_release << "\nis_mc " << of_file->m_isMC << "\n";
  for (const auto& [key, value] : of_file->m_dataDescription) std::cout << "description " << key << " " << value << "\n";
  TTree& tree = find_tree(file, "tree");
  EventMetaData* event = nullptr;
  tree.SetBranchAddress("EventMetaData", &event);
  for (Long64_t i = 0; i < tree.GetEntries(); ++i) {
    tree.GetBranch("EventMetaData")->GetEntry(i);
    std::cout << "event " << event->m_experiment << " " << event->m_run << " " << event->m_event << "\n";
  }
  std::unique_ptr<TList> infos(file.GetStreamerInfoList());
  for (auto* each : *infos) {
    auto* info = dynamic_cast<TStreamerInfo*>(each);
    std::string type = info ? info->GetName() : "";
    if (type.rfind("Belle2::", 0) == 0)
      std::cout << "checksum " << type << " " << info->GetClassVersion() << " " << info->GetCheckSum() << " "
                << TClass::GetClass(type.c_str())->GetClassVersion() << " " << TClass::GetClass(type.c_str())->GetCheckSum()
                << "\n";
  }
}

static int run(const std::vector<std::string>& words)
{
  try {
    const char* name = words.at(1).c_str();
    if (words[0] == "make") make(name, std::stoi(words.at(2)), words.size() > 3 ? std::stoi(words[3]) : 10);
    else if (words[0] == "mix") mix(name);
    else if (words[0] == "overlay")
      overlay(name, std::stoi(words.at(2)), std::stoi(words.at(3)), std::stoll(words.at(4)), std::stoi(words.at(5)),
              words.at(6).c_str());
    else if (words[0] == "others") others(name);
    else if (words[0] == "describe") describe(name);
    else throw std::runtime_error("unknown command");
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
  return 0;
}

static void redirect(int descriptor, const std::string& name)
{
  int file = open(name.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  if (file < 0 || dup2(file, descriptor) < 0) _exit(2);
  close(file);
}

// ROOT starts its interpreter and describes its own classes when it is first used, which takes half a second.
static void start_root()
{
  TMemFile file("start.root", "RECREATE");
  TClonesArray array("TNamed");
  auto* tree = new TTree("tree", "tree");
  tree->Branch("array", &array, 32000, 99);
  tree->Fill();
  file.Write();
}

int main()
{
  start_root();
  for (std::string line; std::getline(std::cin, line);) {
    std::vector<std::string> words;
    std::istringstream stream(line);
    for (std::string word; std::getline(stream, word, '\t');) words.push_back(word);
    pid_t child = fork();
    if (child == 0) {
      redirect(1, words.at(0));
      redirect(2, words.at(1));
      int status = run({words.begin() + 2, words.end()});
      std::cout.flush();
      fflush(nullptr);
      _exit(status);
    }
    int status = -1;
    waitpid(child, &status, 0);
    std::cout << status << std::endl;
  }
}
